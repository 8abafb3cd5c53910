#!/usr/bin/env python3
"""A link between two network namespaces: with a delay, at a rate, losing packets. See README.md.

    tests/netns/link.py --rtt 60 --rate 1000 --server 'mux listen qmux://{ip}:0 --echo' -- mux connect {url}
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77  # The exit code by which a test tells that it could not run here.
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
ADDRESSES = {"server": "10.77.0.1", "client": "10.77.0.2"}


class CannotRun(Exception):
    """This machine does not allow it; the message says what."""


class Namespace:
    """A network namespace that lives as long as a process of ours holds it: nothing is left behind, however we end."""

    def __init__(self):
        # It ends with its stdin, which ends with us.
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        here = os.readlink("/proc/self/ns/net")
        path = f"/proc/{self.holder.pid}/ns/net"
        while os.readlink(path) == here:
            if self.holder.poll() is not None:
                raise CannotRun(f"no network namespace: {self.holder.stderr.read().decode().strip()}")
            time.sleep(0.001)
        self.enter = ["nsenter", f"--net={path}"]

    def run(self, *command, **options):
        """Runs to the end; a failure raises."""
        return subprocess.run([*self.enter, *command], check=True, **options)

    def start(self, *command, **options):
        """Starts it and goes on; it dies with us."""
        return subprocess.Popen([*self.enter, *command], preexec_fn=die_with_parent, **options)

    def close(self):
        self.holder.stdin.close()
        self.holder.stderr.close()
        self.holder.wait()


class Link:
    """Two namespaces, `server` (10.77.0.1) and `client` (10.77.0.2), and the link between them, alike both ways.

    rtt      milliseconds there and back; above 0 the packets go through the relay, else over a veth pair
    rate     Mbit/s; None is without limit
    shape    where the rate applies: "middle", a router with a queue on the way, or "egress", the sender's own device
             (tbf), whose senders feel it at once
    queue    KiB that may wait for their turn at the router; None is the link's bandwidth * delay, at least 128
    loss     percent of the packets: by the relay, or by nft where there is no delay
    tcp      MiB that a TCP socket's buffers may grow to; None is the system's default
    congestion  TCP's congestion control, such as cubic or bbr; None is the system's
    seed     the same seed loses the same packets (relay only)
    """

    def __init__(self, rtt=0.0, rate=None, loss=0.0, shape="middle", queue=None, mtu=1500, tcp=None, congestion=None, seed=1):
        self.rtt, self.rate, self.loss, self.shape = rtt, rate, loss, shape
        self.mtu, self.tcp, self.congestion, self.seed = mtu, tcp, congestion, seed
        self.queue = queue if queue is not None else max(128, int((rate or 0) * rtt / 8.192))
        self.server = self.client = self.relay = None

    def __enter__(self):
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def open(self):
        if os.geteuid() != 0:
            raise CannotRun("network namespaces need root")
        for tool in ["unshare", "nsenter", "ip", "tc"]:
            if shutil.which(tool) is None:
                raise CannotRun(f"there is no command '{tool}'; on Debian: apt-get install util-linux iproute2")
        self.server, self.client = Namespace(), Namespace()
        self.through_relay() if self.rtt > 0 else self.by_veth()
        for end, space in [("server", self.server), ("client", self.client)]:
            space.run("ip", "link", "set", "lo", "up")
            space.run("ip", "link", "set", "eth0", "mtu", str(self.mtu), "txqueuelen", "10000", "up")
            space.run("ip", "address", "add", f"{ADDRESSES[end]}/24", "dev", "eth0")
            if self.tcp is not None:
                most = self.tcp << 20
                space.run("sysctl", "-qw", f"net.ipv4.tcp_rmem=4096 131072 {most}", f"net.ipv4.tcp_wmem=4096 16384 {most}")
            if self.congestion is not None:
                # By the route: a namespace may not set its default to whatever the host has not allowed for everybody.
                space.run("ip", "route", "replace", "10.77.0.0/24", "dev", "eth0", "congctl", self.congestion)
            if self.rate and (self.shape == "egress" or self.rtt == 0):
                limit = ["rate", f"{self.rate}mbit", "burst", str(max(self.mtu * 4, int(self.rate * 125)))]
                space.run("tc", "qdisc", "add", "dev", "eth0", "root", "tbf", *limit, "limit", f"{self.queue}kb")

    def through_relay(self):
        devices = []
        for space in [self.server, self.client]:
            try:
                device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                answer = fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"muxlink%d", IFF_TUN | IFF_NO_PI))
            except OSError as error:
                raise CannotRun(f"no TUN device: {error}") from error
            devices.append(device)
            name = answer[:16].rstrip(b"\0").decode()
            run("ip", "link", "set", name, "name", "eth0", "netns", str(space.holder.pid))
        shaped = self.rate if self.shape == "middle" else None
        arguments = [f"delay={int(self.rtt * 500)}", f"loss={self.loss / 100}", f"seed={self.seed}"]
        if shaped:
            arguments += [f"rate={int(shaped * 125_000)}", f"queue={self.queue << 10}"]
        command = [find_relay(), *arguments]
        self.relay = subprocess.Popen(command, stdin=devices[0], stdout=devices[1], preexec_fn=in_real_time)
        for device in devices:
            os.close(device)

    def by_veth(self):
        peer = ["peer", "name", "eth0", "netns", str(self.client.holder.pid)]
        self.server.run("ip", "link", "add", "eth0", "type", "veth", *peer)
        if not self.loss:
            return
        if shutil.which("nft") is None:
            raise CannotRun("loss without delay needs nft; on Debian: apt-get install nftables")
        for space in [self.server, self.client]:
            # One packet is one segment, so that a loss is the loss of one.
            space.run("ip", "link", "set", "eth0", "gso_max_segs", "1")
            lose = f"numgen random mod 100000 < {int(self.loss * 1000)} drop"
            rules = f"table inet link {{\nchain in {{\ntype filter hook input priority 0;\niifname eth0 {lose}\n}}\n}}\n"
            space.run("nft", "-f", "-", input=rules, text=True)

    def close(self):
        if self.relay is not None:
            self.relay.kill()
            self.relay.wait()
        for space in [self.server, self.client]:
            if space is not None:
                space.close()


def find_relay():
    """Builds the relay where it is not named; cargo knows best whether it is fresh."""
    named = os.environ.get("NETNS_RELAY")
    if named:
        return named
    subprocess.run(["cargo", "build", "--release", "--quiet", "--example", "netns_relay"], cwd=ROOT, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return str(pathlib.Path(target) / "release" / "examples" / "netns_relay")


def run(*command):
    subprocess.run(command, check=True)


def die_with_parent():
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def in_real_time():
    """Before others: a packet that is due is sent, whatever the machine does. Without the right to it, as it goes."""
    die_with_parent()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))


def arguments():
    parser = argparse.ArgumentParser(
        description="Runs a server and a client in two network namespaces with a link between them.",
        epilog="In both commands {ip} is the server's address; in the client's {url} is the first line that the server "
        "printed. Without --server only the client's command runs. The exit code is the client's; 77 means that this "
        "machine does not allow it.",
    )
    parser.add_argument("--rtt", type=float, default=0, metavar="MS", help="round trip, in milliseconds")
    parser.add_argument("--rate", type=float, metavar="MBIT", help="Mbit/s, both ways")
    parser.add_argument("--loss", type=float, default=0, metavar="PERCENT", help="packets lost, both ways")
    parser.add_argument("--shape", choices=["middle", "egress"], default="middle",
                        help="the rate applies at a router on the way, or at the sender's own device")
    parser.add_argument("--queue", type=int, metavar="KIB", help="the router's queue [default: bandwidth * delay]")
    parser.add_argument("--mtu", type=int, default=1500, metavar="BYTES")
    parser.add_argument("--tcp", type=int, metavar="MIB", help="what TCP's buffers may grow to [default: the system's]")
    parser.add_argument("--congestion", metavar="NAME", help="TCP's congestion control [default: the system's]")
    parser.add_argument("--seed", type=int, default=1, help="of the loss, where there is a delay")
    parser.add_argument("--server", metavar="COMMAND", help="a shell command; its first line of output is {url}")
    parser.add_argument("client", nargs="+", help="a command and its arguments")
    return parser.parse_args()


def main():
    given = vars(arguments())
    server, client = given.pop("server"), given.pop("client")
    # So that whatever ends us ends the relay and the commands too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Link(**given) as link:
        url = None
        if server is not None:
            serving = ["sh", "-c", "exec " + server.replace("{ip}", ADDRESSES["server"])]
            serving = link.server.start(*serving, stdout=subprocess.PIPE, text=True)
            url = serving.stdout.readline().strip()
            if not url:
                sys.exit(f"the server said nothing: {server}")
        words = [word.replace("{ip}", ADDRESSES["server"]).replace("{url}", url or "{url}") for word in client]
        ended = link.client.start(*words).wait()
        if server is not None:
            serving.terminate()
            serving.wait()
    return ended


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CannotRun as why:
        print(f"skipped: {why}", file=sys.stderr)
        sys.exit(SKIPPED)
    except KeyboardInterrupt:
        sys.exit(130)
