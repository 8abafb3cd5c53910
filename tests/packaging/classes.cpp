// What include/mux.hpp promises. Compiled together with classes_too.cpp: the header may be in many files.
#include <mux.hpp>

#include <cstdio>
#include <cstdlib>
#include <sys/socket.h>
#include <thread>
#include <type_traits>
#include <unistd.h>

using namespace std::chrono_literals;

bool linked_twice(const mux::channel &channel);

#define CHECK(condition) \
  ((condition) ? static_cast<void>(0) : (std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition), std::exit(1)))

template <typename T>
constexpr bool move_only = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                           std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
static_assert(move_only<mux::channel> && move_only<mux::session> && move_only<mux::listener> && move_only<mux::config> &&
              move_only<mux::queue> && move_only<mux::borrow> && move_only<mux::runtime>);
static_assert(sizeof(mux::session) == sizeof(mux_session), "a wrapper is its handle");

template <typename Call>
static mux::error thrown(Call call) {
  try {
    call();
  } catch (const mux::error &error) {
    return error;
  }
  return mux::error(MUX_OK);
}

// A channel and the peer's end of it.
struct Pair {
  mux::channel here, there;
  Pair(mux::session &client, mux::session &server, std::string_view label = "test")
      : here(client.open(label, 5s)), there(server.accept(5s)) {}
};

static void a_channel_that_is_dropped_is_a_reset(mux::session &client, mux::session &server) {
  Pair pair(client, server);
  pair.here.write_all("half of ");
  pair.here = mux::channel();
  char byte;
  CHECK(thrown([&] { while (pair.there.read(&byte, 1, 5s) != 0) {} }).status() == MUX_ERESET);
}

static void a_channel_that_was_finished_or_closed_ends_cleanly(mux::session &client, mux::session &server) {
  for (int way = 0; way < 4; way++) {
    Pair pair(client, server);
    pair.here.write_all("all of it");
    if (way == 0) pair.here.finish();
    if (way == 1) pair.here.close();
    if (way == 2) pair.here.write_all("", MUX_IO_FIN);
    if (way == 3) pair.here.write("", MUX_IO_FIN);
    mux::channel moved = std::move(pair.here);
    CHECK(!pair.here);
    moved = mux::channel();
    CHECK(pair.there.read_all(100, 5s) == "all of it");
  }
}

static void moving_keeps_the_handle_and_empties_the_source(mux::session &client, mux::session &server) {
  Pair pair(client, server, "a name");
  const mux_handle id = pair.here.id();
  mux::channel other(std::move(pair.here));
  CHECK(!pair.here && other.id() == id && linked_twice(other));
  mux::channel &same = other;
  other = std::move(same);
  CHECK(other.id() == id && other.info(MUX_INFO_LABEL) == "a name" && pair.there.info(MUX_INFO_LABEL) == "a name");
  const mux_channel raw = other.release();
  CHECK(!other && mux_close(raw.h) == MUX_OK);
}

static void errors_carry_the_cause(mux::session &client, mux::session &server) {
  Pair pair(client, server);
  pair.here.write_all("x");
  char byte;
  CHECK(pair.there.read(&byte, 1, 5s) == 1 && !pair.there.try_read(&byte, 1));
  CHECK(thrown([&] { pair.there.read(&byte, 1, 10ms); }).status() == MUX_TIMEDOUT);
  pair.here.reset(42);
  const mux::error reset = thrown([&] { pair.there.read(&byte, 1, 5s); });
  CHECK(reset.status() == MUX_ERESET && reset.code() == 42 && reset.detail().origin == MUX_BY_PEER && *reset.what());
  CHECK(pair.there.cause().code == 42);
  CHECK(thrown([&] { pair.there.abort(~UINT64_C(0)); }).status() == MUX_EINVAL && pair.there);
  pair.there.abort(1);
  CHECK(!pair.there && thrown([&] { pair.there.finish(); }).status() == MUX_EHANDLE);
  const mux::error url = thrown([] { mux::dial("no-scheme://", 0ms); });
  CHECK(url.status() == MUX_EURL && std::string(url.what()).find("qmux") != std::string::npos);
  Pair long_one(client, server);
  long_one.here.write_all("more than that", MUX_IO_FIN);
  CHECK(thrown([&] { long_one.there.read_all(3, 5s); }).status() == MUX_ETOOBIG);
}

static void a_queue_reports(mux::session &client, mux::session &server) {
  Pair pair(client, server);
  mux::queue queue;
  mux_event events[4];
  CHECK(queue.fd() >= 0 && queue.next(events, 4, 0ms) == 0);
  queue.watch(pair.there, MUX_EV_READ, MUX_WATCH_ONESHOT, 7);
  pair.here.write_all("x", MUX_IO_FIN);
  CHECK(queue.next(events, 4, 5s) == 1 && events[0].user == 7 && (events[0].events & MUX_EV_READ) != 0);
  queue.unwatch(pair.there);
  queue.wake();
  CHECK(queue.next(events, 4, 5s) == 0);
  CHECK((pair.there.wait(MUX_EV_READ, 5s) & MUX_EV_READ) != 0 && pair.there.read_all(9, 5s) == "x");
}

static void a_borrow_lends_and_counts_what_was_read(mux::session &client, mux::session &server) {
  Pair pair(client, server);
  pair.here.write_all("one two", MUX_IO_FIN);
  pair.there.wait(MUX_EV_READ, 5s);
  {
    mux::borrow lent = pair.there.read_borrow(5s);
    CHECK(lent && lent.slices().size() == 1 && lent.slices()[0] == "one two");
    char byte;
    CHECK(thrown([&] { pair.there.read(&byte, 1, 0ms); }).status() == MUX_ESTATE);
    CHECK(thrown([&] { lent.consume(8); }).status() == MUX_EINVAL && lent);
    lent.consume(4);
    CHECK(!lent && lent.slices().empty());
  }
  CHECK(pair.there.read_borrow(5s).slices()[0] == "two");  // gone with the temporary, as read
  mux::borrow end = pair.there.read_borrow(5s);
  CHECK(!end && end.slices().empty());
  end.consume(0);
}

static void sessions_run_over_descriptors() {
  int fds[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  mux::session client = mux::adopt(fds[0], fds[0], "qmux", MUX_CLIENT), server = mux::adopt(fds[1], fds[1], "qmux", MUX_SERVER);
  CHECK(::close(fds[0]) == 0 && ::close(fds[1]) == 0);
  Pair pair(client, server);
  const int socket = static_cast<int>(pair.there.to_fd());
  pair.here.write_all("by socket", MUX_IO_FIN);
  char text[16];
  CHECK(recv(socket, text, sizeof text, MSG_WAITALL) == 9 && std::string_view(text, 9) == "by socket" && ::close(socket) == 0);
  CHECK(pair.here.read_all(1, 5s).empty() && client.ping(5s).count() >= 0);
  CHECK(thrown([&] { client.send_datagram("x"); }).status() == MUX_EUNSUPPORTED);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  {
    mux::config config;
    config.set(MUX_CFG_CONNECT_MS, 5000).set("window", "1m");
    CHECK(thrown([&] { config.set("no-option", "1"); }).status() == MUX_EURL);
    mux::listener listener(argv[1], config);
    CHECK(!listener.try_accept());
    mux::session client = mux::dial(listener.url(), config, 5s);
    mux::session server = listener.accept(5s);
    CHECK((client.caps() & MUX_CAP_HALF_CLOSE) != 0 && !server.try_accept());
    a_channel_that_is_dropped_is_a_reset(client, server);
    a_channel_that_was_finished_or_closed_ends_cleanly(client, server);
    moving_keeps_the_handle_and_empties_the_source(client, server);
    errors_carry_the_cause(client, server);
    a_queue_reports(client, server);
    a_borrow_lends_and_counts_what_was_read(client, server);
    sessions_run_over_descriptors();
    listener.reload(config);
    CHECK(client.stats().channels_opened > 5);
    client.interrupt();
    CHECK(thrown([&] { client.accept(5s); }).status() == MUX_CANCELED);
    client.resume();
    client.shutdown(3, "enough");
    CHECK((server.wait(MUX_EV_CLOSED, 5s) & MUX_EV_CLOSED) != 0 && server.cause().code == 3);
  }
  mux::runtime threads(1);
  {
    mux::listener own(argv[1], mux::config().on(threads));
  }
  threads.shutdown(5s);
  mux::shutdown(5s);
  return 0;
}
