package bios.protocol.wire;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.KryoException;
import com.esotericsoftware.kryo.Registration;
import com.esotericsoftware.kryo.Serializer;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import com.esotericsoftware.kryo.util.DefaultClassResolver;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import java.util.function.LongConsumer;
import org.apache.pekko.actor.typed.ActorRef;

/// A Kryo instance with the classes of the client protocol and no others. It reads the bytes of strangers:
/// nothing is allocated for a length that the bytes cannot hold, no class is named by its name, nesting has a
/// limit, and what elements take beside their bytes can be counted. Records may grow ([GrowingRecords]). Not
/// thread-safe.
final class ClientKryo extends Kryo {
    /// The key in the context of a graph that is read: a [LongConsumer] that is told the bytes of the heap
    /// that elements take, before they are read, and throws if there are too many.
    static final Object HEAP = new Object();
    /// What an element of a list, or an entry of a map, takes on the heap beside its bytes, at most: a few
    /// objects with their references.
    private static final int ELEMENT_HEAP_BYTES = 96;
    private static final int DEEPEST = 32;
    private static final int LIST = 10;
    private static final int MAP = 11;
    private static final int OPTIONAL = 12;
    private static final int REF = 13;
    private static final int INTS = 14;
    private static final int FLOATS = 15;
    private static final int BYTES = 16;

    ClientKryo(WireTypes types, Function<ActorRef<?>, String> write, Function<String, ActorRef<?>> read) {
        super(new Numbered(), null);
        setRegistrationRequired(true);
        setReferences(false);
        setMaxDepth(DEEPEST);
        register(String.class, new Strings());
        register(List.class, new Lists(), LIST);
        register(Map.class, new Maps(), MAP);
        register(Optional.class, OPTIONAL);
        register(ActorRef.class, new Refs(write, read), REF);
        register(int[].class, new Ints(), INTS);
        register(float[].class, new Floats(), FLOATS);
        register(byte[].class, new Bytes(), BYTES);
        var taken = new HashMap<Integer, Class<?>>();
        types.registerTo((id, type) -> {
            Class<?> before = taken.put(id, type);
            if (before != null || id < 20)
                throw new IllegalStateException("client id " + id + " of " + type.getName() + " is taken by "
                        + before);
            if (type.isRecord()) register(type, new GrowingRecords<>(type), id);
            else register(type, id);
        });
    }

    @SuppressWarnings("rawtypes") // as Kryo declares it
    @Override public Registration getRegistration(Class type) {
        return super.getRegistration(WireKryo.wireClass(type));
    }

    /// Knows classes by their numbers only. Kryo would read a name, of any length, before it looks whether
    /// the class is registered.
    private static final class Numbered extends DefaultClassResolver {
        @Override protected Registration readName(Input in) {
            throw new KryoException("a class is named by its number");
        }
    }

    /// Reads the number of elements, of which each has this many bytes at least.
    @SuppressWarnings({"rawtypes", "unchecked"}) // as Kryo declares it
    private static int elements(Kryo kryo, Input in, int bytesEach) {
        int size = in.readVarInt(true);
        if (size < 0 || (long) size * bytesEach > in.limit() - in.position())
            throw new KryoException(size + " elements are more than the message holds");
        if (kryo.getGraphContext().get(HEAP) instanceof LongConsumer heap)
            heap.accept((long) size * ELEMENT_HEAP_BYTES);
        return size;
    }

    private static final class Lists extends WireKryo.Lists {
        @Override int size(Kryo kryo, Input in) {
            return elements(kryo, in, 1);
        }
    }

    private static final class Maps extends WireKryo.Maps {
        @Override int size(Kryo kryo, Input in) {
            return elements(kryo, in, 2);
        }
    }

    /// Reads a length, of which the rest of the bytes must hold this many elements.
    private static int length(Input in, int bytesEach) {
        int length = in.readInt();
        if (length < 0 || (long) length * bytesEach > in.limit() - in.position())
            throw new KryoException("a length of " + length + " is more than the message holds");
        return length;
    }

    private static String text(Input in) {
        return new String(in.readBytes(length(in, 1)), StandardCharsets.UTF_8);
    }

    private static void write(Output out, String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        out.writeInt(bytes.length);
        out.writeBytes(bytes);
    }

    private static final class Strings extends Serializer<String> {
        @Override public void write(Kryo kryo, Output out, String text) {
            ClientKryo.write(out, text);
        }

        @Override public String read(Kryo kryo, Input in, Class<? extends String> type) {
            return text(in);
        }
    }

    private static final class Refs extends Serializer<ActorRef<?>> {
        private final Function<ActorRef<?>, String> write;
        private final Function<String, ActorRef<?>> read;

        Refs(Function<ActorRef<?>, String> write, Function<String, ActorRef<?>> read) {
            this.write = write;
            this.read = read;
        }

        @Override public void write(Kryo kryo, Output out, ActorRef<?> ref) {
            ClientKryo.write(out, write.apply(ref));
        }

        @Override public ActorRef<?> read(Kryo kryo, Input in, Class<? extends ActorRef<?>> type) {
            return read.apply(text(in));
        }
    }

    private static final class Ints extends Serializer<int[]> {
        @Override public void write(Kryo kryo, Output out, int[] values) {
            out.writeInt(values.length);
            out.writeInts(values, 0, values.length, false);
        }

        @Override public int[] read(Kryo kryo, Input in, Class<? extends int[]> type) {
            return in.readInts(length(in, Integer.BYTES), false);
        }
    }

    private static final class Floats extends Serializer<float[]> {
        @Override public void write(Kryo kryo, Output out, float[] values) {
            out.writeInt(values.length);
            out.writeFloats(values, 0, values.length);
        }

        @Override public float[] read(Kryo kryo, Input in, Class<? extends float[]> type) {
            return in.readFloats(length(in, Float.BYTES));
        }
    }

    private static final class Bytes extends Serializer<byte[]> {
        @Override public void write(Kryo kryo, Output out, byte[] values) {
            out.writeInt(values.length);
            out.writeBytes(values);
        }

        @Override public byte[] read(Kryo kryo, Input in, Class<? extends byte[]> type) {
            return in.readBytes(length(in, 1));
        }
    }
}
