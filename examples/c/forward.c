/* forward PORT URL LABEL: listens on a TCP port of this machine and carries each connection over a channel of one session,
 * whichever wire URL names. Port 0 lets the system choose; the real one is printed. A channel becomes a socket
 * (mux_channel_to_fd), so that what carries the bytes is plain read and write. */
#include "example.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct direction {
  int from, to;
};

/* Carries one direction up to its end, and passes the end on. */
static void carry(struct direction d) {
  char buf[65536];
  ssize_t n;
  while ((n = read(d.from, buf, sizeof buf)) > 0) {
    for (ssize_t at = 0, put; at < n; at += put) {
      put = send(d.to, buf + at, (size_t)(n - at), MSG_NOSIGNAL);
      if (put < 0) {
        shutdown(d.from, SHUT_RD);
        return;
      }
    }
  }
  shutdown(d.to, SHUT_WR);
}

static void *carry_thread(void *arg) {
  carry(*(struct direction *)arg);
  return NULL;
}

struct connection {
  mux_session session;
  const char *label;
  int tcp;
};

static void *connection_thread(void *arg) {
  struct connection c = *(struct connection *)arg;
  mux_open_opts opts = {.struct_size = sizeof opts, .label = c.label, .label_len = strlen(c.label)};
  mux_error e = {.struct_size = sizeof e};
  mux_channel channel;
  mux_fd fd;
  pthread_t back;
  free(arg);
  mux_status status = mux_channel_open(c.session, &opts, 10000, &channel);
  if (status != MUX_OK) {
    complain("open", c.session.h, status);
    close(c.tcp);
    return NULL;
  }
  if ((status = mux_channel_to_fd(channel, &fd)) != MUX_OK) {
    complain("channel", channel.h, status);
  } else {
    struct direction in = {(int)fd, c.tcp}, out = {c.tcp, (int)fd};
    if (pthread_create(&back, NULL, carry_thread, &in) == 0) {
      carry(out);
      pthread_join(back, NULL);
    }
    /* A socket cannot say that its end was a reset; the channel can. */
    if (mux_cause(channel.h, &e) != MUX_OK) {
      struct linger reset = {1, 0};
      fprintf(stderr, "%s\n", e.message);
      setsockopt(c.tcp, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close((int)fd);
  }
  close(c.tcp);
  mux_close(channel.h);
  return NULL;
}

static volatile sig_atomic_t stopping;
static void on_signal(int number) {
  (void)number;
  stopping = 1;
}

int main(int argc, char **argv) {
  mux_config defaults = {0};
  mux_session session;
  mux_error e = {.struct_size = sizeof e};
  if (argc != 4) {
    fprintf(stderr, "usage: %s PORT URL LABEL\n", argv[0]);
    return 2;
  }
  struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: a signal ends accept */
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
  socklen_t len = sizeof addr;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr *)&addr, len) != 0 || listen(listener, 64) != 0) {
    perror("listen");
    return EXIT_FAILURE;
  }
  if (mux_dial(argv[2], defaults, 10000, &session, &e) != MUX_OK) {
    fprintf(stderr, "%s: %s\n", argv[2], e.message);
    return EXIT_FAILURE;
  }
  getsockname(listener, (struct sockaddr *)&addr, &len);
  printf("%d\n", ntohs(addr.sin_port));
  fflush(stdout);
  while (!stopping) {
    struct connection *c = malloc(sizeof *c);
    pthread_t thread;
    int tcp = accept(listener, NULL, NULL);
    if (!c || tcp < 0) {
      free(c);
      continue;
    }
    *c = (struct connection){session, argv[3], tcp};
    if (pthread_create(&thread, NULL, connection_thread, c) != 0) {
      close(tcp);
      free(c);
      continue;
    }
    pthread_detach(thread);
  }
  close(listener);
  mux_close(session.h);
  return finish_process(EXIT_SUCCESS);
}
