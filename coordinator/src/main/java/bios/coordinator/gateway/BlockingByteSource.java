package bios.coordinator.gateway;

import java.io.IOException;
import java.io.OutputStream;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import org.apache.pekko.stream.OverflowStrategy;
import org.apache.pekko.stream.QueueOfferResult;
import org.apache.pekko.stream.javadsl.Source;
import org.apache.pekko.stream.javadsl.SourceQueueWithComplete;
import org.apache.pekko.util.ByteString;

/// A stream of the bytes that a blocking writer writes. Backpressure blocks the writer, a failure of the
/// writer fails the stream, and a cancelled stream fails the writer.
final class BlockingByteSource {
    private static final int CHUNK = 1 << 16;

    private BlockingByteSource() {}

    /// Writes all bytes; called on a thread that may block.
    @FunctionalInterface
    interface Writer {
        void writeTo(OutputStream out) throws Exception;
    }

    static Source<ByteString, ?> of(Executor blockingExecutor, Writer writer) {
        return Source.<ByteString>queue(4, OverflowStrategy.backpressure()).mapMaterializedValue(queue -> {
            blockingExecutor.execute(() -> {
                try {
                    var out = new QueueOutput(queue);
                    writer.writeTo(out);
                    out.flush();
                    queue.complete();
                } catch (Exception failed) {
                    queue.fail(failed);
                }
            });
            return queue;
        });
    }

    private static final class QueueOutput extends OutputStream {
        private final SourceQueueWithComplete<ByteString> queue;
        private byte[] chunk = new byte[CHUNK];
        private int filled;

        QueueOutput(SourceQueueWithComplete<ByteString> queue) {
            this.queue = queue;
        }

        @Override public void write(int one) throws IOException {
            if (filled == CHUNK) flush();
            chunk[filled++] = (byte) one;
        }

        @Override public void write(byte[] from, int offset, int count) throws IOException {
            for (int done = 0; done < count;) {
                if (filled == CHUNK) flush();
                int n = Math.min(count - done, CHUNK - filled);
                System.arraycopy(from, offset + done, chunk, filled, n);
                filled += n;
                done += n;
            }
        }

        @Override public void flush() throws IOException {
            if (filled == 0) return;
            ByteString bytes = ByteString.fromArray(chunk, 0, filled);
            filled = 0;
            try {
                QueueOfferResult result =
                        queue.offer(bytes).toCompletableFuture().get(); // edge: a virtual thread
                if (!result.isEnqueued()) throw new IOException("the reader has cancelled the stream");
            } catch (ExecutionException gone) {
                throw new IOException("the reader has cancelled the stream", gone);
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
                throw new IOException("interrupted", stopped);
            }
        }
    }
}
