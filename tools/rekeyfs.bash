# Completion of rekeyfs(1) for bash. Install as share/bash-completion/completions/rekeyfs.

_rekeyfs_mounts() {
  local source mountpoint type rest
  while read -r source mountpoint type rest; do
    [[ $type == fuse.rekeyfs ]] && printf '%b\n' "$mountpoint"
  done </proc/self/mounts
}

_rekeyfs() {
  local cur prev words cword
  _init_completion -n = || return

  local command='' sub='' i
  for ((i = 1; i < cword; i++)); do
    [[ ${words[i]} == -* ]] && continue
    if [[ -z $command ]]; then
      command=${words[i]}
    elif [[ $command == key && -z $sub ]]; then
      sub=${words[i]}
    fi
  done

  case $prev in
    --key-file | --passphrase-file)
      _filedir
      return
      ;;
    -o | --options)
      compopt -o nospace
      local before=''
      [[ $cur == *,* ]] && before=${cur%,*},
      COMPREPLY=($(compgen -P "$before" -W 'ro rw exec noexec allow_other key_file= passphrase_file= writeback_cache log=' -- "${cur##*,}"))
      return
      ;;
  esac

  local unlock='--key-file --passphrase-file' options='-h --help'
  case $command in
    '') options+=' --version' ;;
    init) options+=" $unlock" ;;
    mount) options+=" -f --foreground -o --options $unlock" ;;
    status) options+=" --watch --wait --json $unlock" ;;
    info) options+=" --json $unlock" ;;
    key) [[ -n $sub ]] && options+=" --json $unlock" ;;
  esac

  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$cur"))
    return
  fi
  case $command/$sub in
    /) COMPREPLY=($(compgen -W 'init mount umount key status info' -- "$cur")) ;;
    key/) COMPREPLY=($(compgen -W 'create list show' -- "$cur")) ;;
    init/ | mount/) _filedir -d ;;
    umount/)
      local IFS=$'\n'
      compopt -o filenames
      COMPREPLY=($(compgen -W "$(_rekeyfs_mounts)" -- "$cur"))
      ;;
    *) _filedir ;;
  esac
} && complete -F _rekeyfs rekeyfs
