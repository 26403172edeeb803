package bios.protocol.wire;

import com.esotericsoftware.kryo.Kryo;
import com.esotericsoftware.kryo.KryoException;
import com.esotericsoftware.kryo.Serializer;
import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.RecordComponent;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/// Writes a record as the bytes and the number of its components, then the components in order. So a build
/// that does not know the components that were added at the end reads past them, and one that misses
/// components in an older message takes them as absent: an empty [Optional], list or map, 0 or false.
final class GrowingRecords<T> extends Serializer<T> {
    private final Constructor<T> constructor;
    private final Method[] accessors;
    private final Class<?>[] types;

    GrowingRecords(Class<T> type) {
        RecordComponent[] components = type.getRecordComponents();
        types = Arrays.stream(components).map(RecordComponent::getType).toArray(Class<?>[]::new);
        accessors = Arrays.stream(components).map(RecordComponent::getAccessor).toArray(Method[]::new);
        try {
            constructor = type.getDeclaredConstructor(types);
            constructor.setAccessible(true);
            for (Method accessor : accessors) accessor.setAccessible(true);
        } catch (NoSuchMethodException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    @Override public void write(Kryo kryo, Output out, T value) {
        int at = out.position();
        out.writeInt(0);
        out.writeByte(accessors.length);
        try {
            for (Method accessor : accessors) kryo.writeClassAndObject(out, accessor.invoke(value));
        } catch (IllegalAccessException | InvocationTargetException impossible) {
            throw new IllegalStateException(impossible);
        }
        int end = out.position();
        out.setPosition(at);
        out.writeInt(end - at - Integer.BYTES);
        out.setPosition(end);
    }

    @Override public T read(Kryo kryo, Input in, Class<? extends T> type) {
        int bytes = in.readInt();
        if (bytes < 1 || bytes > in.limit() - in.position())
            throw new KryoException(bytes + " bytes of a record are more than the message holds");
        int end = in.position() + bytes;
        int given = in.readByte() & 0xff;
        var values = new Object[types.length];
        for (int i = 0; i < types.length; i++) {
            Object value = i < given ? kryo.readClassAndObject(in) : absent(types[i], type);
            if (!boxed(types[i]).isInstance(value))
                throw new KryoException("component " + i + " of " + type.getSimpleName() + " is "
                        + (value == null ? "null" : value.getClass().getSimpleName()));
            values[i] = value;
        }
        in.setPosition(end);
        try {
            return constructor.newInstance(values);
        } catch (InvocationTargetException refused) {
            throw refused.getCause() instanceof RuntimeException wrong ? wrong
                    : new KryoException(refused.getCause());
        } catch (ReflectiveOperationException impossible) {
            throw new IllegalStateException(impossible);
        }
    }

    private static Object absent(Class<?> component, Class<?> type) {
        if (component == Optional.class) return Optional.empty();
        if (component == List.class) return List.of();
        if (component == Map.class) return Map.of();
        if (component == int.class) return 0;
        if (component == long.class) return 0L;
        if (component == double.class) return 0.0;
        if (component == boolean.class) return false;
        throw new KryoException("an older " + type.getSimpleName() + " has no " + component.getSimpleName());
    }

    private static Class<?> boxed(Class<?> component) {
        if (component == int.class) return Integer.class;
        if (component == long.class) return Long.class;
        if (component == double.class) return Double.class;
        if (component == float.class) return Float.class;
        if (component == boolean.class) return Boolean.class;
        return component;
    }
}
