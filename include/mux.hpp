// libmux for C++17: owning, move-only classes over mux.h. Header only and no part of the ABI: each class is one handle, each
// function one call of C, and get() gives the handle for everything that has no wrapper here.
//
// Failures are thrown as mux::error. Functions called try_... never wait and give nothing where C gives MUX_AGAIN.
// What goes out of scope is closed. A channel is not, unless finish(), a write with MUX_IO_FIN or close() ended it: then it is
// aborted, so that a peer never takes an accident for the end. A program calls mux::shutdown() before it exits.
//
// Calls may come from many threads at once, but for close(), release() and moves, which change the object itself: to end what
// another thread waits for, use interrupt() or session::shutdown().
#ifndef MUX_HPP
#define MUX_HPP

#include <mux.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mux {

using milliseconds = std::chrono::milliseconds;

// Waits without limit; every negative duration does.
inline constexpr milliseconds forever{-1};

// What a call failed with, and as far as it is known who caused it and with which code.
class error : public std::runtime_error {
 public:
  explicit error(mux_status status) : std::runtime_error(mux_status_text(status)), detail_{} {
    detail_.struct_size = sizeof detail_;
    detail_.status = status;
  }
  explicit error(const mux_error &detail) : std::runtime_error(detail.message), detail_(detail) {}

  mux_status status() const noexcept { return detail_.status; }
  std::uint64_t code() const noexcept { return detail_.code; }
  bool retry_safe() const noexcept { return detail_.retry_safe != 0; }
  const mux_error &detail() const noexcept { return detail_; }

 private:
  mux_error detail_;
};

namespace detail {

inline std::int32_t clamp(milliseconds timeout) noexcept {
  if (timeout.count() < 0) return MUX_FOREVER;
  return timeout.count() < INT32_MAX ? static_cast<std::int32_t>(timeout.count()) : INT32_MAX;
}

inline mux_error no_error() noexcept {
  mux_error error{};
  error.struct_size = sizeof error;
  return error;
}

// For functions that fill an error in themselves.
inline void check(mux_status status, const mux_error &error) {
  if (status == MUX_OK) return;
  if (error.status == status) throw mux::error(error);
  throw mux::error(status);
}

// For functions on an object, whose cause says more when it is that which failed.
inline void check(mux_status status, mux_handle object) {
  if (status == MUX_OK) return;
  mux_error error = no_error();
  mux_cause(object, &error);
  check(status, error);
}

inline std::size_t count(std::int64_t result, mux_handle object) {
  if (result < 0) check(static_cast<mux_status>(result), object);
  return static_cast<std::size_t>(result);
}

}  // namespace detail

// A handle, closed with its owner. Empty after a move, release() and close().
template <typename Raw>
class handle {
 public:
  handle() noexcept = default;
  explicit handle(Raw raw) noexcept : raw_(raw) {}
  handle(handle &&other) noexcept : raw_(other.release()) {}
  handle &operator=(handle &&other) noexcept {
    if (this != &other) {
      close();
      raw_ = other.release();
    }
    return *this;
  }
  handle(const handle &) = delete;
  handle &operator=(const handle &) = delete;
  ~handle() { close(); }

  explicit operator bool() const noexcept { return raw_.h != 0; }
  Raw get() const noexcept { return raw_; }
  mux_handle id() const noexcept { return raw_.h; }
  // The handle is the caller's to close from now on.
  Raw release() noexcept { return std::exchange(raw_, Raw{}); }
  void close() noexcept {
    if (raw_.h != 0) mux_close(release().h);
  }

  // Waits for events; those that hold. See mux_wait.
  std::uint32_t wait(std::uint32_t events, milliseconds timeout = forever) const {
    std::uint32_t ready = 0;
    detail::check(mux_wait(id(), events, detail::clamp(timeout), &ready), id());
    return ready;
  }
  void interrupt() const { detail::check(mux_interrupt(id()), id()); }
  void resume() const { detail::check(mux_resume(id()), id()); }
  // Why it ended; a status of MUX_OK while it lives.
  mux_error cause() const noexcept {
    mux_error error = detail::no_error();
    mux_cause(id(), &error);
    return error;
  }
  // A fact as text or bytes, by enum mux_info_key.
  std::string info(std::uint32_t key) const {
    std::string text;
    std::size_t length = detail::count(mux_info(id(), key, nullptr, 0), id());
    do {
      text.resize(length);
      length = detail::count(mux_info(id(), key, text.data(), text.size()), id());
    } while (length > text.size());
    text.resize(length);
    return text;
  }
  mux_stats stats() const {
    mux_stats stats{};
    stats.struct_size = sizeof stats;
    detail::check(mux_stats_get(id(), &stats), id());
    return stats;
  }

 private:
  Raw raw_{};
};

// Threads of its own for sessions; most programs need none.
class runtime : public handle<mux_runtime> {
 public:
  explicit runtime(std::uint32_t worker_threads = 0) : handle(make(worker_threads)) {}
  // Ends everything that belongs to it; MUX_TIMEDOUT when data was lost.
  void shutdown(milliseconds timeout) {
    const mux_status status = mux_runtime_shutdown(get(), detail::clamp(timeout));
    if (status == MUX_OK || status == MUX_TIMEDOUT) close();
    detail::check(status, mux_handle{0});
  }

 private:
  static mux_runtime make(std::uint32_t worker_threads) {
    mux_runtime_opts options{};
    options.struct_size = sizeof options;
    options.worker_threads = worker_threads;
    mux_runtime made{};
    detail::check(mux_runtime_new(&options, &made), mux_handle{0});
    return made;
  }
};

// Ends the default runtime, before the program exits: unsent data does not outlive the process.
inline void shutdown(milliseconds timeout) { detail::check(mux_runtime_shutdown(mux_runtime{}, detail::clamp(timeout)), mux_handle{0}); }

// Configuration of sessions and listeners, copied when they are made.
class config : public handle<mux_config> {
 public:
  config() : handle(make()) {}
  config &set(std::uint32_t key, std::uint64_t value) {
    detail::check(mux_config_set_u64(get(), key, value), id());
    return *this;
  }
  // By the name that URLs use.
  config &set(const std::string &name, const std::string &value) {
    detail::check(mux_config_set_option(get(), name.c_str(), value.c_str()), id());
    return *this;
  }
  config &on(const runtime &threads) {
    detail::check(mux_config_set_runtime(get(), threads.get()), id());
    return *this;
  }
  config &trust_file(const std::string &pem) {
    mux_error error = detail::no_error();
    detail::check(mux_config_tls_ca_file(get(), pem.c_str(), &error), error);
    return *this;
  }
  config &identity_files(const std::string &certificate, const std::string &key) {
    mux_error error = detail::no_error();
    detail::check(mux_config_tls_identity_files(get(), certificate.c_str(), key.c_str(), &error), error);
    return *this;
  }

 private:
  static mux_config make() {
    mux_config made{};
    detail::check(mux_config_new(&made), mux_handle{0});
    return made;
  }
};

// Bytes that are read where they lie. They stay readable until it goes out of scope, which counts all of them as read.
class borrow : public handle<mux_borrow> {
 public:
  borrow(mux_borrow raw, std::vector<std::string_view> slices) noexcept : handle(raw), slices_(std::move(slices)) {}
  // None at the clean end of the stream.
  const std::vector<std::string_view> &slices() const noexcept { return slices_; }
  // Gives them back: the next read begins behind the first `size` bytes.
  void consume(std::size_t size) {
    if (*this || size != 0) detail::check(mux_borrow_release(get(), size), mux_handle{0});
    release();
    slices_.clear();
  }

 private:
  std::vector<std::string_view> slices_;
};

// Two byte streams in opposite directions.
class channel : public handle<mux_channel> {
 public:
  channel() noexcept = default;
  explicit channel(mux_channel raw) noexcept : handle(raw) {}
  channel(channel &&other) noexcept : handle(std::move(other)), finished_(std::exchange(other.finished_, false)) {}
  channel &operator=(channel &&other) noexcept {
    if (this != &other) {
      drop();
      handle::operator=(std::move(other));
      finished_ = std::exchange(other.finished_, false);
    }
    return *this;
  }
  ~channel() { drop(); }

  // What is there, at most `size` bytes; 0 is the clean end.
  std::size_t read(void *buffer, std::size_t size, milliseconds timeout = forever) {
    return detail::count(mux_read(get(), buffer, size, 0, detail::clamp(timeout)), id());
  }
  std::optional<std::size_t> try_read(void *buffer, std::size_t size) {
    return some(mux_read(get(), buffer, size, 0, MUX_NOWAIT));
  }
  borrow read_borrow(milliseconds timeout = forever) {
    mux_iovec pieces[64];
    std::int32_t number = 64;
    mux_borrow lent{};
    if (detail::count(mux_read_borrow(get(), pieces, &number, detail::clamp(timeout), &lent), id()) == 0) number = 0;
    std::vector<std::string_view> slices;
    for (const mux_iovec *piece = pieces; piece < pieces + number; piece++)
      slices.emplace_back(static_cast<const char *>(piece->base), piece->len);
    return borrow(lent, std::move(slices));
  }
  // Everything, or error MUX_EFINISHED at an end before it.
  void read_exact(void *buffer, std::size_t size, milliseconds timeout = forever) {
    detail::check(mux_read_exact(get(), buffer, size, detail::clamp(timeout), nullptr), id());
  }
  // The rest of the stream, at most `limit` bytes: more is error MUX_ETOOBIG.
  std::string read_all(std::size_t limit, milliseconds timeout_per_read = forever) {
    std::string text;
    char block[16384];
    while (const std::size_t length = read(block, sizeof block, timeout_per_read)) {
      if (length > limit - text.size()) throw error(MUX_ETOOBIG);
      text.append(block, length);
    }
    return text;
  }

  // Some of the bytes; how many were taken.
  std::size_t write(std::string_view bytes, std::uint32_t flags = 0, milliseconds timeout = forever) {
    return ended(detail::count(mux_write(get(), bytes.data(), bytes.size(), flags, detail::clamp(timeout)), id()), bytes, flags);
  }
  std::optional<std::size_t> try_write(std::string_view bytes, std::uint32_t flags = 0) {
    const std::optional<std::size_t> taken = some(mux_write(get(), bytes.data(), bytes.size(), flags, MUX_NOWAIT));
    if (taken) ended(*taken, bytes, flags);
    return taken;
  }
  void write_all(std::string_view bytes, std::uint32_t flags = 0, milliseconds timeout = forever) {
    detail::check(mux_write_all(get(), bytes.data(), bytes.size(), flags, detail::clamp(timeout), nullptr), id());
    ended(bytes.size(), bytes, flags);
  }

  // The end of what this side writes; the other direction goes on.
  void finish() {
    detail::check(mux_finish(get()), id());
    finished_ = true;
  }
  void reset(std::uint64_t code) { detail::check(mux_reset(get(), code), id()); }
  void stop(std::uint64_t code) { detail::check(mux_stop(get(), code), id()); }
  // For error paths: reset, stop and close in one.
  void abort(std::uint64_t code) {
    detail::check(mux_abort(get(), code), mux_handle{0});
    release();
  }
  // The bytes as a socket, which is the caller's to close; they flow as long as the channel is not closed.
  mux_fd to_fd() {
    mux_fd descriptor = -1;
    detail::check(mux_channel_to_fd(get(), &descriptor), id());
    return descriptor;
  }
  // A hint: 0 the default, else the urgency of RFC 9218 plus 1.
  void set_priority(std::uint32_t urgency, bool incremental = false) {
    detail::check(mux_channel_set_priority(get(), urgency, incremental ? 1 : 0), id());
  }

 private:
  bool finished_ = false;

  void drop() noexcept {
    if (*this && !finished_) mux_abort(release(), 0);
    close();
  }
  std::size_t ended(std::size_t taken, std::string_view bytes, std::uint32_t flags) noexcept {
    finished_ = finished_ || ((flags & MUX_IO_FIN) != 0 && taken == bytes.size());
    return taken;
  }
  std::optional<std::size_t> some(std::int64_t result) const {
    if (result == MUX_AGAIN) return std::nullopt;
    return detail::count(result, id());
  }
};

// Many channels over one connection.
class session : public handle<mux_session> {
 public:
  session() noexcept = default;
  explicit session(mux_session raw) noexcept : handle(raw) {}

  channel open(std::string_view label = {}, milliseconds timeout = forever) {
    mux_open_opts options{};
    options.struct_size = sizeof options;
    options.label = label.data();
    options.label_len = label.size();
    mux_channel made{};
    detail::check(mux_channel_open(get(), &options, detail::clamp(timeout), &made), id());
    return channel(made);
  }
  channel accept(milliseconds timeout = forever) {
    mux_channel made{};
    detail::check(mux_channel_accept(get(), detail::clamp(timeout), &made), id());
    return channel(made);
  }
  std::optional<channel> try_accept() {
    mux_channel made{};
    const mux_status status = mux_channel_accept(get(), MUX_NOWAIT, &made);
    if (status == MUX_AGAIN) return std::nullopt;
    detail::check(status, id());
    return channel(made);
  }
  std::uint64_t caps() const {
    std::uint64_t caps = 0;
    detail::check(mux_session_caps(get(), &caps), id());
    return caps;
  }
  std::chrono::microseconds ping(milliseconds timeout = forever) {
    std::uint64_t round_trip = 0;
    detail::check(mux_ping(get(), detail::clamp(timeout), &round_trip), id());
    return std::chrono::microseconds(round_trip);
  }
  // Messages that may be lost or overtake each other (MUX_CAP_DATAGRAM).
  void send_datagram(std::string_view bytes) { detail::check(mux_datagram_send(get(), bytes.data(), bytes.size()), id()); }
  std::size_t receive_datagram(void *buffer, std::size_t size, milliseconds timeout = forever) {
    return detail::count(mux_datagram_recv(get(), buffer, size, detail::clamp(timeout)), id());
  }
  void drain() { detail::check(mux_session_drain(get()), id()); }
  void shutdown(std::uint64_t code, const std::string &reason) { detail::check(mux_shutdown(id(), code, reason.c_str()), id()); }
};

inline session dial(const std::string &url, const handle<mux_config> &with, milliseconds timeout = forever) {
  mux_error error = detail::no_error();
  mux_session made{};
  detail::check(mux_dial(url.c_str(), with.get(), detail::clamp(timeout), &made, &error), error);
  return session(made);
}

inline session dial(const std::string &url, milliseconds timeout = forever) { return dial(url, handle<mux_config>(), timeout); }

// A session over descriptors that are connected already: one socket twice, or two pipes. The library works on copies.
inline session adopt(mux_fd reading, mux_fd writing, const std::string &scheme, mux_role role,
                     const handle<mux_config> &with = handle<mux_config>()) {
  mux_error error = detail::no_error();
  mux_session made{};
  detail::check(mux_session_from_fds(reading, writing, 0, scheme.c_str(), role, with.get(), &made, &error), error);
  return session(made);
}

// A bound address that yields sessions.
class listener : public handle<mux_listener> {
 public:
  explicit listener(const std::string &url, const handle<mux_config> &with = handle<mux_config>(), milliseconds timeout = forever)
      : handle(make(url, with, timeout)) {}

  // To dial, with the real port.
  std::string url() const { return info(MUX_INFO_URL); }
  session accept(milliseconds timeout = forever) {
    mux_session made{};
    mux_error error = detail::no_error();
    detail::check(mux_accept(get(), detail::clamp(timeout), &made, &error), error);
    return session(made);
  }
  // Certificates and limits for the sessions to come.
  void reload(const config &with) {
    mux_error error = detail::no_error();
    detail::check(mux_listener_reload(get(), with.get(), &error), error);
  }
  std::optional<session> try_accept() {
    mux_session made{};
    mux_error error = detail::no_error();
    const mux_status status = mux_accept(get(), MUX_NOWAIT, &made, &error);
    if (status == MUX_AGAIN) return std::nullopt;
    detail::check(status, error);
    return session(made);
  }

 private:
  static mux_listener make(const std::string &url, const handle<mux_config> &with, milliseconds timeout) {
    mux_error error = detail::no_error();
    mux_listener made{};
    detail::check(mux_listen(url.c_str(), with.get(), detail::clamp(timeout), &made, &error), error);
    return made;
  }
};

// Tells which handles are ready, with one descriptor for poll and event loops.
class queue : public handle<mux_queue> {
 public:
  queue() : handle(make()) {}

  mux_fd fd() const {
    mux_fd descriptor = -1;
    detail::check(mux_queue_fd(get(), &descriptor), id());
    return descriptor;
  }
  template <typename Raw>
  void watch(const handle<Raw> &object, std::uint32_t events, std::uint32_t mode, std::uint64_t user) {
    detail::check(mux_watch(get(), object.id(), events, mode, user), mux_handle{0});
  }
  template <typename Raw>
  void unwatch(const handle<Raw> &object) {
    detail::check(mux_unwatch(get(), object.id()), mux_handle{0});
  }
  // How many events were stored: 0 after wake(), or when none came in time.
  std::size_t next(mux_event *events, std::int32_t max, milliseconds timeout = forever) {
    const std::int64_t result = mux_queue_next(get(), events, max, detail::clamp(timeout));
    return result == MUX_AGAIN || result == MUX_TIMEDOUT ? 0 : detail::count(result, id());
  }
  void wake() { detail::check(mux_queue_wake(get()), id()); }

 private:
  static mux_queue make() {
    mux_queue made{};
    detail::check(mux_queue_new(mux_runtime{}, &made), mux_handle{0});
    return made;
  }
};

}  // namespace mux

#endif  // MUX_HPP
