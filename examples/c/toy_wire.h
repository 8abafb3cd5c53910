/* What the two parts of the toy backend share: toy_backend.c answers the library's calls, toy_wire.c moves bytes.
 *
 * The wire: frames of a type (1 byte), a channel (4) and a length (4), then as many bytes. Numbers are big-endian. Ids of
 * channels are odd when the client opened them, else even. Each end begins with HELLO; a sender keeps to the window that the
 * receiver announced there, plus what WINDOW gave since. A toy trusts its peer with the memory for frames without data. */
#ifndef TOY_WIRE_H
#define TOY_WIRE_H

#include <mux.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum frame {
  HELLO = 'H',  /* 8 bytes: the window of every channel */
  OPEN = 'O',   /* the label */
  CONFIRM = 'C',
  REFUSE = 'X', /* 8 bytes: a code; nothing was done with the channel */
  DATA = 'D',
  FIN = 'F',
  RESET = 'R',  /* 8 bytes: a code */
  STOP = 'S',   /* 8 bytes: a code */
  WINDOW = 'W', /* 8 bytes: so many more */
  GOAWAY = 'G', /* no new channels */
  BYE = 'B',    /* 8 bytes: a code, then the reason; the last frame */
  PING = 'P',
  PONG = 'Q'
};

enum { PART = 16384, MOST = 1 << 20, GATHERED = 1 << 17 };

/* Bytes that wait: those from head to len. */
struct bytes {
  unsigned char *at;
  size_t head, len, room;
};

/* Of a configuration, which lives no longer than the call that brings it. */
struct settings {
  uint64_t window, budget, send_buffer, max_channels, max_label, backlog, keepalive, idle;
};

enum { WAITS, OWNED, LET_GO };

struct channel {
  struct channel *next, *next_incoming;
  struct session *s;
  uint32_t id;
  uint64_t cookie;
  int owner;                /* WAITS for accept, OWNED by the library, LET_GO by it */
  int opened;               /* confirmed, or opened by the peer */
  struct bytes label, in, out;
  uint64_t taken;           /* read since the last WINDOW */
  uint64_t credit;          /* what may be sent */
  uint64_t mark;            /* where in the session's output its last frame ends */
  int fin_wanted, fin_sent, reset_sent, stop_sent, fin_got, reset_got, stop_got, refused;
  uint64_t reset_code, stop_code, refuse_code;
};

struct listener;

struct session {
  struct session *next_ready;
  struct listener *listener; /* that of an accepted session, until it is accepted */
  int fd, wake[2], client, connecting;
  uint64_t cookie;
  int owned;                 /* by the library, or by its listener's queue */
  int connected, abort, released;
  int drain, peer_drains, closing, bye_sent, hung_up;
  uint64_t close_code;
  char close_reason[1025];
  mux_error end;             /* status 0 while it lives */
  struct channel *channels, *incoming, **last_incoming;
  int waiting, theirs;       /* channels that nobody accepted yet; channels that the peer has open */
  uint64_t held;             /* all channels: each may make us hold a window */
  uint32_t next_id;
  struct bytes in, out;
  uint64_t written, sent;    /* bytes put to out, bytes taken from it by the socket */
  struct settings set;
  uint64_t peer_window;
  int64_t heard, probed, moved; /* when something came, a probe was sent, a channel moved; milliseconds */
  int ping;                  /* 0 none, 1 asked, 2 answered */
  int64_t ping_sent, ping_took; /* microseconds */
  mux_stats stats;
};

struct listener {
  int fd, wake[2], users, closed, freed, released;
  uint64_t cookie;
  struct settings set;
  char url[128];
  struct session *ready, **last_ready;
};

/* One lock for everything: a toy. */
extern pthread_mutex_t toy_lock;

int64_t now_us(void);
void put(struct bytes *b, const void *data, size_t len);
void drop(struct bytes *b);
size_t waiting(const struct bytes *b);
void frame(struct session *s, char type, uint32_t id, const void *body, size_t len);
void frame_u64(struct session *s, char type, uint32_t id, uint64_t value);
void notify(uint64_t cookie, uint32_t events);
void wake(struct session *s);
int has_room(const struct session *s);
struct channel *new_channel(struct session *s, uint32_t id);
int send_over(const struct channel *c);
int recv_over(const struct channel *c);
int drained(const struct channel *c);
void end_session(struct session *s, mux_status status, uint32_t origin, uint64_t code, const char *text);
struct settings settings_of(mux_config c);
struct session *new_session(int fd, int client, const struct settings *set); /* NULL: no memory or descriptors */
/* Start the threads: 0, or -1. */
int start_session(struct session *s);
int start_listener(struct listener *l);
void drop_listener(struct listener *l);

#endif
