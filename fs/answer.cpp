#include "fs/answer.h"

#include <cerrno>

#include "fs/passthrough.h"

namespace rekeyfs::fs {

void send(fuse_req_t req, const fuse_entry_param& entry) {
  fuse_entry_param current = entry;
  current.generation = context_of(req).retirement.generation_of(Ino{entry.ino});
  fuse_reply_entry(req, &current);
}
void send(fuse_req_t req, const Stat& attributes) {
  fuse_reply_attr(req, &attributes, kCacheSeconds);
}
void send(fuse_req_t req, const struct statvfs& space) {
  fuse_reply_statfs(req, &space);
}
void send(fuse_req_t req, const LinkTarget& target) {
  fuse_reply_readlink(req, target.text.c_str());
}
void send(fuse_req_t req, const Text& text) {
  fuse_reply_buf(req, text.text.data(), text.text.size());
}
void send(fuse_req_t req, const NeededSize& needed) {
  fuse_reply_xattr(req, needed.size);
}
void send(fuse_req_t req, const Written& written) {
  fuse_reply_write(req, written.size);
}
void send(fuse_req_t req, const Position& position) {
  fuse_reply_lseek(req, static_cast<off_t>(position.offset));
}

void send(fuse_req_t req, const AfterDropping& order) {
  context_of(req).notifier.drop_pages(order.ino, order.pages, order.then);
}

void send(fuse_req_t req, const Bytes& bytes) {
  fuse_reply_buf(req, reinterpret_cast<const char*>(bytes.bytes.data()), bytes.bytes.size());
}

// For the three functions below: a reply that fails with ENOENT means that the caller was interrupted, and that the
// kernel forgets the handle without a release. The context is read first, because a reply frees the request.
void send(fuse_req_t req, const OpenedFile& opened) {
  HandleTable& handles = context_of(req).handles;
  const int sent =
      opened.backing ? reply_passthrough(req, opened.info.fh, *opened.backing) : fuse_reply_open(req, &opened.info);
  if (sent == -ENOENT) handles.remove_file(opened.info.fh);
}

void send(fuse_req_t req, const OpenedDirectory& opened) {
  HandleTable& handles = context_of(req).handles;
  if (fuse_reply_open(req, &opened.info) == -ENOENT) handles.remove_directory(opened.info.fh);
}

void send(fuse_req_t req, const CreatedFile& created) {
  HandleTable& handles = context_of(req).handles;
  if (fuse_reply_create(req, &created.entry, &created.info) == -ENOENT) handles.remove_file(created.info.fh);
}

void send(fuse_req_t req, const IoctlAnswer& answer) {
  fuse_reply_ioctl(req, 0, answer.out.data(), answer.out.size());
}

void send_error(fuse_req_t req, const char* operation, fuse_ino_t ino, const Error& error) {
  fuse_reply_err(req, context_of(req).errors.report(operation, ino, error));
}

}  // namespace rekeyfs::fs
