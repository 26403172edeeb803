package bios.coordinator.gateway;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/// Passes TCP connections on, and holds back every byte while it is told to: a network that drops packets.
final class HoldingProxy implements AutoCloseable {
    private final ServerSocket server = new ServerSocket();
    private final Set<Socket> open = ConcurrentHashMap.newKeySet();
    private boolean holds;

    HoldingProxy(InetSocketAddress at, InetSocketAddress target) throws IOException {
        server.bind(at);
        Thread.ofVirtual().start(() -> {
            while (!server.isClosed()) {
                try {
                    Socket in = server.accept();
                    var out = new Socket();
                    out.connect(target);
                    open.add(in);
                    open.add(out);
                    Thread.ofVirtual().start(() -> pass(in, out));
                    Thread.ofVirtual().start(() -> pass(out, in));
                } catch (IOException closed) {
                    // or the target does not listen yet: the peer tries again
                }
            }
        });
    }

    private void pass(Socket from, Socket to) {
        try (from; to) {
            byte[] buffer = new byte[8192];
            InputStream in = from.getInputStream();
            OutputStream out = to.getOutputStream();
            for (int read; (read = in.read(buffer)) >= 0;) {
                awaitFree();
                out.write(buffer, 0, read);
            }
        } catch (IOException closed) {
            // as its end
        }
    }

    private synchronized void awaitFree() throws IOException {
        try {
            while (holds) wait();
        } catch (InterruptedException ended) {
            throw new IOException(ended);
        }
    }

    /// Holds back everything from now on, or lets it pass.
    synchronized void hold(boolean given) {
        holds = given;
        notifyAll();
    }

    @Override public void close() {
        hold(false);
        try {
            server.close();
            for (Socket socket : open) socket.close();
        } catch (IOException failed) {
            throw new UncheckedIOException(failed);
        }
    }
}
