package bios.protocol.wire;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.Registration;
import com.esotericsoftware.kryo.Serializer;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import com.esotericsoftware.kryo.serializers.RecordSerializer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import org.apache.pekko.actor.typed.ActorRef;

/// A Kryo instance with the classes of the wire and no others. Not thread-safe: pooled by [WireSerializer].
final class WireKryo extends Kryo {
    private static final int LIST = 10;
    private static final int MAP = 11;
    private static final int OPTIONAL = 12;
    private static final int REF = 13;
    private static final int INTS = 14;
    private static final int FLOATS = 15;
    private static final int BYTES = 16;

    WireKryo(List<WireTypes> types, Function<ActorRef<?>, String> write, Function<String, ActorRef<?>> read) {
        setRegistrationRequired(true);
        setReferences(false);
        register(List.class, new Lists(), LIST);
        register(Map.class, new Maps(), MAP);
        register(Optional.class, OPTIONAL);
        register(ActorRef.class, new Refs(write, read), REF);
        register(int[].class, INTS);
        register(float[].class, FLOATS);
        register(byte[].class, BYTES);
        var taken = new HashMap<Integer, Class<?>>();
        for (WireTypes module : types)
            module.registerTo((id, type) -> {
                Class<?> before = taken.put(id, type);
                if (before != null || id < 20)
                    throw new IllegalStateException("wire id " + id + " of " + type.getName()
                            + " is taken by " + before);
                if (type.isRecord()) register(type, recordSerializer(type), id);
                else register(type, id);
            });
    }

    private static <T> Serializer<T> recordSerializer(Class<T> type) {
        return new RecordSerializer<>(type);
    }

    @SuppressWarnings("rawtypes") // as Kryo declares it
    @Override public Registration getRegistration(Class type) {
        return super.getRegistration(wireClass(type));
    }

    static Class<?> wireClass(Class<?> type) {
        if (ActorRef.class.isAssignableFrom(type)) return ActorRef.class;
        if (List.class.isAssignableFrom(type)) return List.class;
        if (Map.class.isAssignableFrom(type)) return Map.class;
        return type;
    }

    static class Lists extends Serializer<List<?>> {
        /// The number of elements, which are about to be read.
        int size(Kryo kryo, Input in) {
            return in.readVarInt(true);
        }

        @Override public void write(Kryo kryo, Output out, List<?> list) {
            out.writeVarInt(list.size(), true);
            for (Object element : list) kryo.writeClassAndObject(out, element);
        }

        @Override public List<?> read(Kryo kryo, Input in, Class<? extends List<?>> type) {
            int size = size(kryo, in);
            var list = new ArrayList<Object>(Math.min(size, 1 << 16));
            for (int i = 0; i < size; i++) list.add(kryo.readClassAndObject(in));
            return Collections.unmodifiableList(list);
        }
    }

    static class Maps extends Serializer<Map<?, ?>> {
        /// The number of entries, which are about to be read.
        int size(Kryo kryo, Input in) {
            return in.readVarInt(true);
        }

        @Override public void write(Kryo kryo, Output out, Map<?, ?> map) {
            out.writeVarInt(map.size(), true);
            map.forEach((key, value) -> {
                kryo.writeClassAndObject(out, key);
                kryo.writeClassAndObject(out, value);
            });
        }

        @Override public Map<?, ?> read(Kryo kryo, Input in, Class<? extends Map<?, ?>> type) {
            int size = size(kryo, in);
            var map = new LinkedHashMap<Object, Object>();
            for (int i = 0; i < size; i++) map.put(kryo.readClassAndObject(in), kryo.readClassAndObject(in));
            return Collections.unmodifiableMap(map);
        }
    }

    static final class Refs extends Serializer<ActorRef<?>> {
        private final Function<ActorRef<?>, String> write;
        private final Function<String, ActorRef<?>> read;

        Refs(Function<ActorRef<?>, String> write, Function<String, ActorRef<?>> read) {
            this.write = write;
            this.read = read;
        }

        @Override public void write(Kryo kryo, Output out, ActorRef<?> ref) {
            out.writeString(write.apply(ref));
        }

        @Override public ActorRef<?> read(Kryo kryo, Input in, Class<? extends ActorRef<?>> type) {
            return read.apply(in.readString());
        }
    }
}
