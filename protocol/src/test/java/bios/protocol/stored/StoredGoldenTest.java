package bios.protocol.stored;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import org.junit.jupiter.api.Test;

/// Bytes of all earlier builds can be read; `golden/stored/*.hex` contains them. With
/// `-Dgolden.write=true` missing files are written.
class StoredGoldenTest {
    private static final Path GOLDEN = Path.of("golden/stored");

    private static byte[] golden(String name, byte[] now) throws IOException {
        Path file = GOLDEN.resolve(name + ".hex");
        if (Boolean.getBoolean("golden.write") && !Files.exists(file)) {
            Files.createDirectories(GOLDEN);
            Files.writeString(file, HexFormat.of().formatHex(now) + "\n");
        }
        return HexFormat.of().parseHex(Files.readString(file).strip());
    }

    @Test void operationsOfVersionOneKeepTheirBytes() throws IOException {
        for (var entry : Samples.operations().entrySet()) {
            byte[] now = StoredOperations.encode(entry.getValue());
            byte[] old = golden("operation-" + entry.getKey() + ".1", now);
            assertEquals(entry.getValue(), StoredOperations.decode(OperationKind.of(entry.getValue()), old),
                    entry.getKey());
            assertEquals(HexFormat.of().formatHex(old), HexFormat.of().formatHex(now), entry.getKey());
        }
    }

    @Test void configurationsAndManifestsKeepTheirBytes() throws IOException {
        var types = new StoredTypes(List.of(StoredType.first("config", RunConfig.class),
                StoredType.first("manifest", CheckpointManifest.class)));
        for (Object value : List.of(Samples.CONFIG, Samples.MANIFEST)) {
            byte[] now = types.write(value);
            byte[] old = golden(types.manifest(value).replace('/', '.'), now);
            assertEquals(value, types.read(types.manifest(value), old));
            assertEquals(HexFormat.of().formatHex(old), HexFormat.of().formatHex(now));
        }
    }

    record Before(RunId run, long count) {}

    record After(RunId run, long steps, String note) {}

    @Test void anOlderVersionIsMigratedAndANewerOneRefused() {
        var before = new StoredTypes(List.of(StoredType.first("thing", Before.class)));
        var after = new StoredTypes(List.of(new StoredType<>("thing", 2, After.class, (_, old) -> {
            ObjectNode now = old.deepCopy();
            now.set("steps", now.remove("count"));
            return now.put("note", "migrated");
        })));
        var old = new Before(Samples.RUN, 7);
        assertEquals(new After(Samples.RUN, 7, "migrated"),
                after.read(before.manifest(old), before.write(old)));
        var fresh = new After(Samples.RUN, 7, "new");
        var refused = assertThrows(UnreadableRecord.class,
                () -> before.read(after.manifest(fresh), after.write(fresh)));
        assertTrue(refused.getMessage().contains("thing/2"), refused.getMessage());
    }

    @Test void damagedBytesAreRefusedByName() {
        byte[] good = StoredOperations.encode(Samples.operations().get("load-state"));
        for (int length = 0; length < good.length; length++) {
            byte[] torn = Arrays.copyOf(good, length);
            assertThrows(UnreadableRecord.class,
                    () -> StoredOperations.decode(OperationKind.LOAD_STATE, torn));
        }
    }
}
