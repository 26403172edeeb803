package bios.protocol.wire;

import com.esotericsoftware.kryo.io.Input;
import com.esotericsoftware.kryo.io.Output;
import java.io.NotSerializableException;
import java.nio.BufferOverflowException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.apache.pekko.actor.ExtendedActorSystem;
import org.apache.pekko.actor.typed.ActorRefResolver;
import org.apache.pekko.actor.typed.javadsl.Adapter;
import org.apache.pekko.serialization.ByteBufferSerializer;
import org.apache.pekko.serialization.SerializerWithStringManifest;

/// Serializes [Message]s between processes of one version of Bios with Kryo. The manifest is the version of
/// the wire format: bytes of another version are refused. Stored data uses `bios.protocol.stored` instead.
public final class WireSerializer extends SerializerWithStringManifest implements ByteBufferSerializer {
    /// Incremented with every change of a class on the wire; `golden/wire` contains the bytes of each
    /// version.
    public static final String VERSION = "5";
    static final int IDENTIFIER = 52_001;

    private final ExtendedActorSystem system;
    private final KryoPool kryos;

    /// Called by Pekko, which finds the class by its name.
    public WireSerializer(ExtendedActorSystem system) {
        this.system = system;
        var refs = ActorRefResolver.get(Adapter.toTyped(system));
        List<WireTypes> types = types(system);
        kryos = new KryoPool(() ->
                new WireKryo(types, refs::toSerializationFormat, refs::resolveActorRef));
    }

    private static List<WireTypes> types(ExtendedActorSystem system) {
        var types = new ArrayList<WireTypes>();
        var named = system.settings().config().getConfig("bios.wire.types").root().unwrapped();
        for (Object name : named.values()) {
            try {
                types.add(system.dynamicAccess().classLoader().loadClass(name.toString())
                        .asSubclass(WireTypes.class).getDeclaredConstructor().newInstance());
            } catch (ReflectiveOperationException | ClassCastException wrong) {
                throw new IllegalStateException("bios.wire.types names " + name
                        + ", which cannot be instantiated: "
                        + wrong, wrong);
            }
        }
        return List.copyOf(types);
    }

    @Override public int identifier() {
        return IDENTIFIER;
    }

    @Override public String manifest(Object message) {
        return VERSION;
    }

    @Override public byte[] toBinary(Object message) {
        return kryos.encode(message);
    }

    @Override public void toBinary(Object message, ByteBuffer buffer) {
        Output output = kryos.write(message);
        if (output.position() > buffer.remaining() && message instanceof Reply) {
            LargeReply large = Outbox.of(Adapter.toTyped(system)).keep(output.toBytes());
            kryos.release(output);
            output = kryos.write(large);
        }
        try {
            // Pekko reports this exception as "message too large", and Kryo's exception as a failure of the
            // serializer.
            if (output.position() > buffer.remaining()) throw new BufferOverflowException();
            buffer.put(output.getBuffer(), 0, output.position());
        } finally {
            kryos.release(output);
        }
    }

    @Override public Object fromBinary(byte[] bytes, String manifest) throws NotSerializableException {
        return read(new Input(bytes), manifest);
    }

    @Override public Object fromBinary(ByteBuffer buffer, String manifest) throws NotSerializableException {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return read(new Input(bytes), manifest);
    }

    private Object read(Input input, String manifest) throws NotSerializableException {
        if (!manifest.equals(VERSION))
            throw new NotSerializableException("the sender speaks version " + manifest
                    + " of the wire, this process " + VERSION + "; run the same Bios everywhere");
        try {
            return kryos.read(input);
        } catch (RuntimeException wrong) { // Kryo, and the constructors of records
            throw new NotSerializableException("a message cannot be read: " + wrong.getMessage());
        }
    }
}
