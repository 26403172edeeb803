package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

/// Events and snapshots of all earlier builds can be read; `protocol/golden/run/*.hex` contains them. With
/// `-Dgolden.write=true` missing files are written.
class RunStoredGoldenTest {
    private static final Path GOLDEN = Path.of("../protocol/golden/run");

    @Test void eventsAndSnapshotsOfEarlierBuildsAreRead() throws Exception {
        int number = 0;
        for (Object value : TrainingRunTest.stored()) {
            String manifest = RunStored.TYPES.manifest(value);
            byte[] now = RunStored.TYPES.write(value);
            Path file = GOLDEN.resolve("%02d-%s.hex".formatted(number++, manifest.replace('/', '.')));
            if (Boolean.getBoolean("golden.write") && !Files.exists(file)) {
                Files.createDirectories(GOLDEN);
                Files.writeString(file, HexFormat.of().formatHex(now) + "\n");
            }
            byte[] old = HexFormat.of().parseHex(Files.readString(file).strip());
            assertEquals(value, RunStored.TYPES.read(manifest, old), manifest);
            assertEquals(HexFormat.of().formatHex(old), HexFormat.of().formatHex(now), manifest);
        }
    }

    @Test void everyEventHasGoldenBytes() {
        Set<Class<?>> events = new HashSet<>(List.of(RunEvent.class.getPermittedSubclasses()));
        TrainingRunTest.stored().forEach(value -> events.remove(value.getClass()));
        assertEquals(Set.of(), events);
    }
}
