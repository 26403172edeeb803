package bios.protocol.wire;

import java.util.concurrent.atomic.AtomicInteger;
import org.apache.pekko.serialization.JSerializer;

/// Takes the place of every serializer that an actor system of the client protocol must not have: Pekko adds
/// those of all libraries on the class path by itself.
public final class RefusingSerializer extends JSerializer {
    /// Pekko wants another identifier for each; no bytes have one of these.
    private static final AtomicInteger LAST = new AtomicInteger(-1000);

    private final int identifier = LAST.decrementAndGet();

    /// Called by Pekko, which finds the class by its name.
    public RefusingSerializer() {}

    @Override public int identifier() {
        return identifier;
    }

    @Override public boolean includeManifest() {
        return false;
    }

    @Override public byte[] toBinary(Object message) {
        throw new IllegalArgumentException(message.getClass().getName()
                + " is no message of the client protocol");
    }

    @Override public Object fromBinaryJava(byte[] bytes, Class<?> manifest) {
        throw new IllegalArgumentException("no message of the client protocol");
    }
}
