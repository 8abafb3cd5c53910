// An echo server and a client of it, with include/mux.hpp.
//
//   echo URL              listens, prints the URL to dial, serves one session after the other
//   echo URL TEXT         dials, sends the text, prints what comes back
#include <iostream>
#include <mux.hpp>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

static void echo(mux::channel channel) {
  std::vector<char> buffer(65536);
  while (const std::size_t length = channel.read(buffer.data(), buffer.size()))
    channel.write_all({buffer.data(), length});
  channel.finish();  // an exception before this leaves the peer with a reset instead of an end
}

static void serve(mux::session session) {
  std::vector<std::thread> threads;
  try {
    for (;;)
      threads.emplace_back([channel = session.accept()]() mutable {
        try {
          echo(std::move(channel));
        } catch (const mux::error &error) {
          std::cerr << "channel: " << error.what() << "\n";
        }
      });
  } catch (const mux::error &) {
    // The session is over: no more channels.
  }
  for (std::thread &thread : threads) thread.join();
}

int main(int argc, char **argv) {
  if (argc < 2 || argc > 3) {
    std::cerr << "usage: echo URL [TEXT]\n";
    return 2;
  }
  try {
    if (argc == 2) {
      mux::listener listener(argv[1]);
      std::cout << listener.url() << std::endl;
      for (;;) serve(listener.accept());
    }
    mux::session session = mux::dial(argv[1], 5s);
    mux::channel channel = session.open("echo", 5s);
    channel.write_all(argv[2], MUX_IO_FIN, 5s);
    std::cout << channel.read_all(1 << 20, 5s) << "\n";
    channel.close();
    session.close();
    mux::shutdown(5s);
    return 0;
  } catch (const mux::error &error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
