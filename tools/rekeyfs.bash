# Completion of rekeyfs(1) for bash. Install as share/bash-completion/completions/rekeyfs.

_rekeyfs_mounts() {
  local source mountpoint type rest
  while read -r source mountpoint type rest; do
    [[ $type == fuse.rekeyfs ]] && printf '%b\n' "$mountpoint"
  done </proc/self/mounts
}

# The keys of every mount: the path that says which store is meant comes after the key.
_rekeyfs_keys() {
  local mountpoint
  while read -r mountpoint; do
    timeout 2 "$1" key list --json "$mountpoint" </dev/null 2>/dev/null |
      sed -n 's/^ *"alias": "\([A-Za-z0-9._-]*\)",*$/\1/p'
  done < <(_rekeyfs_mounts)
}

_rekeyfs() {
  local cur prev words cword
  _init_completion -n = || return

  local command='' sub='' given=0 i
  for ((i = 1; i < cword; i++)); do
    case ${words[i]} in
      --key-file | --passphrase-file | --description | --anchor | --key | -o | --options | -n) ((++i)) ;;
      -*) ;;
      *)
        if [[ -z $command ]]; then
          command=${words[i]}
        elif [[ ($command == key || $command == profile) && -z $sub ]]; then
          sub=${words[i]}
        else
          ((++given))
        fi
        ;;
    esac
  done

  case $prev in
    --key)
      COMPREPLY=($(compgen -W "$(_rekeyfs_keys "${words[0]}")" -- "$cur"))
      return
      ;;
    --description | --anchor | -n)
      return
      ;;
    --key-file | --passphrase-file)
      _filedir
      return
      ;;
    -o | --options)
      compopt -o nospace
      local before=''
      [[ $cur == *,* ]] && before=${cur%,*},
      COMPREPLY=($(compgen -P "$before" -W 'ro rw exec noexec allow_other key_file= passphrase_file= writeback_cache hot= hot_idle= user_keys= log=' -- "${cur##*,}"))
      return
      ;;
  esac

  local unlock='--key-file --passphrase-file' options='-h --help'
  case $command in
    '') options+=' --version' ;;
    init) options+=" $unlock" ;;
    mount) options+=" -f --foreground -o --options $unlock" ;;
    replicate) options+=' --description --key --plain --fast-create --wait --dry-run --json' ;;
    status) options+=" --watch --wait --json $unlock" ;;
    log) options+=" -n --after --follow --verify --json $unlock" ;;
    info) options+=" --json $unlock" ;;
    check) options+=" --read-data --repair --anchor --json $unlock" ;;
    rotate) options+=" --key --json $unlock" ;;
    profile) [[ -n $sub ]] && options+=" --json $unlock" ;;
    key)
      [[ -n $sub ]] && options+=" --json $unlock"
      [[ $sub == disable || $sub == delete ]] && options+=' --force'
      [[ $sub == delete ]] && options+=' --after'
      ;;
  esac

  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
    return
  fi
  case $command/$sub in
    /) COMPREPLY=($(compgen -W 'init mount umount key replicate rotate status info profile log check' -- "$cur")) ;;
    key/) COMPREPLY=($(compgen -W 'create list show rotate disable enable grant revoke delete cancel-deletion' -- "$cur")) ;;
    profile/) COMPREPLY=($(compgen -W 'show clear' -- "$cur")) ;;
    key/create) ((given == 0)) || _filedir ;;
    key/list) _filedir ;;
    key/*)
      if ((given == 0)); then
        COMPREPLY=($(compgen -W "$(_rekeyfs_keys "${words[0]}")" -- "$cur"))
      else
        _filedir
      fi
      ;;
    init/ | mount/) _filedir -d ;;
    umount/)
      local IFS=$'\n'
      compopt -o filenames
      COMPREPLY=($(compgen -W "$(_rekeyfs_mounts)" -- "$cur"))
      ;;
    *) _filedir ;;
  esac
} && complete -F _rekeyfs rekeyfs
