package bios.coordinator.gateway;

import bios.coordinator.Metrics;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/// Accepts the connections of the actor protocol and passes them on to Artery, which listens on a port of
/// this machine only. Artery bounds neither the number of connections nor the length of a frame, and holds a
/// stream for each connection that says nothing. Here all of these have a bound; whoever exceeds one is
/// disconnected. With TLS the frames cannot be seen, but then a peer has shown a certificate.
final class BoundedAcceptor implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(BoundedAcceptor.class);
    /// How a connection of Artery begins; a number of its stream follows.
    private static final Set<String> MAGIC = Set.of("AKKA", "PEKK");
    private static final int MAGIC_BYTES = 4;
    private static final int TLS_HANDSHAKE = 0x16;
    private static final int BACKLOG = 256;
    private static final int BUFFER_BYTES = 16 << 10;
    /// While there are at most this many connections, new ones get threads of the system and large buffers.
    private static final int FEW = 256;
    private static final int LARGE_BUFFER_BYTES = 64 << 10;
    /// Artery sends nothing back over a connection; TLS does.
    private static final int BACK_BUFFER_BYTES = 2 << 10;
    private static final int PAUSE_MILLIS = 100;
    private static final long LOG_NANOS = Duration.ofMinutes(1).toNanos();

    /// @param connections at the same time
    /// @param ofAddress of one address at the same time
    /// @param header time in which a connection must say that it is one of Artery's
    /// @param frameBytes largest frame
    record Limits(int connections, int ofAddress, Duration header, int frameBytes) {}

    /// Why a peer is disconnected.
    private enum Reason {
        CONNECTIONS("there are too many"),
        ADDRESS("its address has too many"),
        HEADER("it does not speak the protocol"),
        FRAME("a frame of it is too large");

        private final String text;

        Reason(String text) {
            this.text = text;
        }
    }

    private final ServerSocket server;
    private final boolean tls;
    private final Limits limits;
    private final LongSupplier nanos;
    private final Map<InetAddress, Integer> byAddress = new HashMap<>();
    private final Set<Socket> open = new HashSet<>();
    private final Map<Reason, Long> logged = new ConcurrentHashMap<>();

    private BoundedAcceptor(ServerSocket server, boolean tls, Limits limits, LongSupplier nanos) {
        this.server = server;
        this.tls = tls;
        this.limits = limits;
        this.nanos = nanos;
    }

    /// Takes the port; throws if it cannot be had. Connections wait until [#passTo].
    ///
    /// @param port 0: a free one
    /// @param nanos monotonic clock
    static BoundedAcceptor bind(String host, int port, boolean tls, Limits limits, LongSupplier nanos) {
        try {
            var server = new ServerSocket();
            server.setReuseAddress(true);
            server.bind(new InetSocketAddress(host, port), BACKLOG);
            return new BoundedAcceptor(server, tls, limits, nanos);
        } catch (IOException failed) {
            throw new UncheckedIOException("the port of the actor protocol, " + host + ":" + port
                    + ", cannot be opened: " + failed.getMessage(), failed);
        }
    }

    int port() {
        return server.getLocalPort();
    }

    /// Passes connections on to this port of the machine.
    void passTo(int port) {
        var target = new InetSocketAddress(InetAddress.getLoopbackAddress(), port);
        Thread.ofPlatform().daemon().name("actor-port").start(() -> accept(target));
    }

    private void accept(InetSocketAddress target) {
        while (!server.isClosed()) {
            try {
                Socket peer = server.accept();
                if (enter(peer)) Thread.ofVirtual().start(() -> greet(peer, target));
            } catch (IOException failed) { // closed, or the process has no file descriptor left
                if (!server.isClosed()) pause();
            }
        }
    }

    private static void pause() {
        try {
            Thread.sleep(PAUSE_MILLIS); // edge: until there are file descriptors again
        } catch (InterruptedException _) {
            Thread.currentThread().interrupt();
        }
    }

    private boolean enter(Socket peer) {
        InetAddress address = peer.getInetAddress();
        synchronized (open) {
            boolean full = open.size() >= limits.connections();
            if (full || byAddress.getOrDefault(address, 0) >= limits.ofAddress()) {
                refuse(peer, full ? Reason.CONNECTIONS : Reason.ADDRESS);
                return false;
            }
            open.add(peer);
            byAddress.merge(address, 1, Integer::sum);
            Metrics.ACTOR_CONNECTIONS.set(open.size());
        }
        return true;
    }

    private void leave(Socket peer) {
        synchronized (open) {
            if (!open.remove(peer)) return;
            byAddress.computeIfPresent(peer.getInetAddress(), (_, count) -> count == 1 ? null : count - 1);
            Metrics.ACTOR_CONNECTIONS.set(open.size());
        }
    }

    private void refuse(Socket peer, Reason why) {
        Metrics.ACTOR_CONNECTIONS_REFUSED.labelValues(why.name().toLowerCase(Locale.ROOT)).inc();
        long now = nanos.getAsLong();
        Long before = logged.get(why);
        if (before == null || now - before > LOG_NANOS) {
            logged.put(why, now);
            LOG.warn("{} is disconnected from the port of the actor protocol: {}; others are only counted for"
                    + " a minute", peer.getInetAddress(), why.text);
        }
        try {
            peer.setSoLinger(true, 0); // the kernel keeps nothing of it
            peer.close();
        } catch (IOException _) {
            // it is closed
        }
    }

    /// Reads the first bytes in a virtual thread, because a stranger may leave it waiting.
    private void greet(Socket peer, InetSocketAddress target) {
        byte[] magic = new byte[MAGIC_BYTES];
        boolean speaks = false;
        try {
            speaks = speaks(peer, magic);
            if (speaks) peer.setSoTimeout(0);
        } catch (IOException _) {
            // it has gone
        }
        if (!speaks) {
            refuse(peer, Reason.HEADER);
            leave(peer);
        } else if (few()) {
            Thread.ofPlatform().daemon().name("actor-connection")
                    .start(() -> serve(peer, magic, target, LARGE_BUFFER_BYTES));
        } else {
            serve(peer, magic, target, BUFFER_BYTES);
        }
    }

    private boolean few() {
        synchronized (open) {
            return open.size() <= FEW;
        }
    }

    /// Passes on what a peer sends. A thread of the system does so sooner: a virtual one waits at each frame
    /// for the one that polls sockets and for its carrier.
    private void serve(Socket peer, byte[] magic, InetSocketAddress target, int bufferBytes) {
        try (peer; var artery = new Socket()) {
            peer.setKeepAlive(true);
            artery.connect(target);
            for (Socket socket : List.of(peer, artery)) socket.setTcpNoDelay(true);
            artery.getOutputStream().write(magic);
            Thread.ofVirtual().start(() -> passBack(artery, peer));
            passOn(peer, artery, new byte[bufferBytes]);
        } catch (IOException _) {
            // one side has gone, and the other goes too
        } finally {
            leave(peer);
        }
    }

    /// Whether the connection begins as one of the protocol, in time.
    private boolean speaks(Socket peer, byte[] magic) throws IOException {
        long end = nanos.getAsLong() + limits.header().toNanos();
        InputStream in = peer.getInputStream();
        try {
            for (int read = 0; read < MAGIC_BYTES;) {
                long left = (end - nanos.getAsLong()) / 1_000_000;
                if (left <= 0) return false;
                peer.setSoTimeout((int) left);
                int more = in.read(magic, read, MAGIC_BYTES - read);
                if (more < 0) return false;
                read += more;
            }
        } catch (SocketTimeoutException _) {
            return false;
        }
        return tls ? magic[0] == TLS_HANDSHAKE
                : MAGIC.contains(new String(magic, StandardCharsets.ISO_8859_1));
    }

    private void passOn(Socket peer, Socket artery, byte[] buffer) throws IOException {
        var frames = new Frames(limits.frameBytes());
        InputStream in = peer.getInputStream();
        OutputStream out = artery.getOutputStream();
        for (int read; (read = in.read(buffer)) >= 0;) {
            if (!tls && !frames.pass(buffer, read)) {
                refuse(peer, Reason.FRAME);
                return;
            }
            out.write(buffer, 0, read);
        }
    }

    private static void passBack(Socket artery, Socket peer) {
        try (artery; peer) {
            byte[] buffer = new byte[BACK_BUFFER_BYTES];
            InputStream in = artery.getInputStream();
            OutputStream out = peer.getOutputStream();
            for (int read; (read = in.read(buffer)) >= 0;) out.write(buffer, 0, read);
        } catch (IOException _) {
            // as its end
        }
    }

    /// Reads the lengths of the frames of one connection as they pass: after the number of the stream, each
    /// frame begins with its length, 4 bytes, the lowest first.
    static final class Frames {
        private final int largest;
        /// Bytes that pass before the next length.
        private long left = 1;
        private int length;
        private int lengthBytes;

        Frames(int largest) {
            this.largest = largest;
        }

        /// Whether the next `count` bytes may pass.
        boolean pass(byte[] bytes, int count) {
            for (int at = 0; at < count;) {
                if (left > 0) {
                    int skipped = (int) Math.min(left, count - at);
                    left -= skipped;
                    at += skipped;
                } else {
                    length |= (bytes[at++] & 0xff) << 8 * lengthBytes++;
                    if (lengthBytes < Integer.BYTES) continue;
                    if (length < 0 || length > largest) return false;
                    left = length;
                    length = 0;
                    lengthBytes = 0;
                }
            }
            return true;
        }
    }

    /// Closes the port and the connections.
    @Override public void close() {
        List<Socket> all;
        try {
            server.close();
        } catch (IOException _) {
            // it is closed
        }
        synchronized (open) {
            all = List.copyOf(open);
        }
        for (Socket peer : all) {
            try {
                peer.close();
            } catch (IOException _) {
                // it is closed
            }
        }
    }
}
