package bios.protocol.wire;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.KryoException;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import com.esotericsoftware.kryo.util.Pool;
import java.util.Map;
import java.util.function.Supplier;

/// The Kryo instances and buffers of one serializer, which are not thread-safe themselves. Numbers have fixed
/// lengths.
final class KryoPool {
    private static final int INITIAL_BYTES = 4096;
    private static final int MAX_POOLED_BYTES = 1 << 20;
    private static final int POOL_SIZE = 64;

    private final Pool<Kryo> kryos;
    private final Pool<Output> outputs;

    KryoPool(Supplier<? extends Kryo> kryo) {
        kryos = new Pool<>(true, false, POOL_SIZE) {
            @Override protected Kryo create() {
                return kryo.get();
            }
        };
        outputs = new Pool<>(true, false, POOL_SIZE) {
            @Override protected Output create() {
                var output = new Output(INITIAL_BYTES, -1);
                output.setVariableLengthEncoding(false);
                return output;
            }
        };
    }

    /// The encoded message, in a buffer that is handed back with [#release].
    Output write(Object message) {
        Output output = outputs.obtain();
        Kryo kryo = kryos.obtain();
        try {
            kryo.writeClassAndObject(output, message);
        } catch (KryoException | IllegalArgumentException failed) {
            throw new IllegalArgumentException("cannot send " + message.getClass().getName() + ": "
                    + failed.getMessage(), failed);
        } finally {
            kryos.free(kryo);
        }
        return output;
    }

    void release(Output output) {
        if (output.getBuffer().length > MAX_POOLED_BYTES) return;
        output.reset();
        outputs.free(output);
    }

    /// The encoded message.
    byte[] encode(Object message) {
        Output output = write(message);
        byte[] bytes = output.toBytes();
        release(output);
        return bytes;
    }

    /// Reads a message; throws a [RuntimeException], of Kryo or of the constructor of a record, if it cannot.
    Object read(Input input) {
        return read(input, Map.of());
    }

    /// The same with values in the context of the graph.
    @SuppressWarnings("unchecked") // as Kryo declares it
    Object read(Input input, Map<Object, Object> context) {
        input.setVariableLengthEncoding(false);
        Kryo kryo = kryos.obtain();
        try {
            context.forEach(kryo.getGraphContext()::put);
            return kryo.readClassAndObject(input);
        } finally {
            kryos.free(kryo);
        }
    }
}
