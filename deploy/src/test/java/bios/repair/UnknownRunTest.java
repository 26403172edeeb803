package bios.repair;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.CommandFailed;
import bios.coordinator.session.SessionEvent;
import bios.coordinator.session.SessionSerializer;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.journal.OfflineJournal;
import bios.protocol.run.RunId;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Blobs of runs of which the journal has nothing.
class UnknownRunTest {
    private static final String SESSION = "session|s1";
    private static final RunId UNKNOWN = new RunId("tiny-0123456789ab");
    private static final RunId LOST = new RunId("tiny-ba9876543210");
    private static final String LOST_ID = "run-tiny|" + LOST;
    @TempDir Path data;
    private final List<String> output = new ArrayList<>();

    @BeforeEach void oneSessionAndBlobsOfTwoRuns() throws Exception {
        var stored = new SessionSerializer();
        var event = new SessionEvent.SessionEnded(1);
        try (var journal = OfflineJournal.change(data)) {
            journal.append(SESSION, 0, stored.identifier(), stored.manifest(event), stored.toBinary(event),
                    1);
            journal.acknowledge(Map.of(SESSION, 1L, LOST_ID, 4L));
        }
        try (var blobs = FileBlobStore.open(data.resolve("blobs"))) {
            blobs.put("runs/" + UNKNOWN + "/recovery/2", new byte[10]);
            blobs.put("runs/" + UNKNOWN + "/results/2", new byte[7]);
            blobs.put("runs/" + LOST + "/recovery/2", new byte[5]);
        }
    }

    private DataRepair repair(boolean files) {
        return new DataRepair(data, files, InstantSource.system(), output::add);
    }

    private List<RunId> unknown() {
        return DataCheck.of(data, true).unknown().stream().map(UnknownRun::run).toList();
    }

    private boolean hasBlobs(RunId run) {
        return Files.exists(data.resolve("blobs/blobs/runs").resolve(run.value()));
    }

    @Test void blobsAreDeletedOnRequestAndOnlyThoseOfRunsThatNothingKnows() {
        assertEquals(List.of(UNKNOWN), unknown());
        UnknownRun found = DataCheck.of(data, true).unknown().getFirst();
        assertEquals(17, found.bytes());
        assertEquals(2, found.blobs().size());
        assertTrue(Files.isDirectory(found.folder()));

        // The journal lacks events that were acknowledged: whatever it does not know may be what it lacks.
        var refused = assertThrows(CommandFailed.class, () -> repair(true).deleteUnknown(Optional.empty()));
        assertTrue(refused.getMessage().contains("not whole"), refused.getMessage());
        assertTrue(hasBlobs(UNKNOWN) && hasBlobs(LOST));

        repair(true).acceptLoss();
        assertTrue(output.stream().anyMatch(line -> line.contains("run " + LOST + ": 1 blobs, 5 bytes in ")
                && line.contains("--delete-unknown")), () -> output.toString());
        assertEquals(List.of(UNKNOWN, LOST), unknown());
        assertTrue(DataCheck.of(data, true).clean());

        repair(true).deleteUnknown(Optional.of(UNKNOWN.value()));
        assertTrue(!hasBlobs(UNKNOWN) && hasBlobs(LOST));
        repair(true).deleteUnknown(Optional.empty());
        assertTrue(!hasBlobs(LOST));
        assertEquals(List.of(), unknown());
        assertEquals(List.of(), repair(true).deleteUnknown(Optional.empty()));
    }

    @Test void whereTheBlobsAreElsewhereTheirPlaceIsNamed() {
        repair(false).acceptLoss();
        assertTrue(output.stream().anyMatch(line -> line.contains("runs/" + LOST)), () -> output.toString());
        assertThrows(CommandFailed.class, () -> repair(false).deleteUnknown(Optional.empty()));
    }
}
