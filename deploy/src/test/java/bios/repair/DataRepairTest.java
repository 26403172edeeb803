package bios.repair;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.run.RunEvent;
import bios.coordinator.run.RunStored;
import bios.persistence.blob.FileBlobStore;
import bios.persistence.journal.JournalLoss.Loss;
import bios.persistence.journal.OfflineJournal;
import bios.protocol.model.LoraSpec;
import bios.protocol.model.ModelName;
import bios.protocol.model.TargetModule;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A journal and its list of acknowledged events that are both older than the blobs beside them.
class DataRepairTest {
    private static final RunId RUN = new RunId("tiny-0123456789ab");
    private static final String ID = "run-tiny|" + RUN;
    @TempDir Path data;

    @BeforeEach void aRunWithTwoEventsAndABlobThatProvesNine() throws Exception {
        var stored = new RunStored();
        var config = new RunConfig(RUN, "alice", new ModelName("tiny"),
                new LoraSpec(8, 32, 7, List.of(TargetModule.Q)), true, Optional.empty(), "{}", "s-1", 1);
        var events = List.of(new RunEvent.EntityBegan(1), new RunEvent.RunCreated(config, Optional.empty()));
        try (var journal = OfflineJournal.change(data)) {
            for (int i = 0; i < events.size(); i++) journal.append(ID, i, stored.identifier(),
                    stored.manifest(events.get(i)), stored.toBinary(events.get(i)), 1);
            journal.acknowledge(Map.of(ID, 2L));
        }
        try (var blobs = FileBlobStore.open(data.resolve("blobs"))) {
            blobs.put("runs/" + RUN + "/recovery/1", new byte[] {1});
            blobs.put("runs/" + RUN + "/results/1/9", new byte[] {2});
        }
    }

    private DataRepair repair() {
        return new DataRepair(data, true, InstantSource.system(), _ -> {});
    }

    private void assertFound() {
        EntityCheck found = DataCheck.of(data, true).damaged().getFirst();
        assertEquals(9, found.acknowledged());
        assertEquals(2, found.good());
        assertTrue(found.problems().getFirst().contains("event 9"), () -> found.problems().toString());
    }

    @Test void theLossIsFoundAndCanBeAccepted() {
        assertFound();
        assertEquals(List.of(new Loss(ID, 2, 9)), repair().acceptLoss());
        assertTrue(DataCheck.of(data, true).clean());
        assertEquals(List.of(), repair().acceptLoss());
    }

    @Test void theLossIsFoundAndTheRunPutBackToWhatTheJournalHas() {
        assertFound();
        assertEquals(2, repair().restore(Optional.empty()).getFirst().good());
        assertTrue(DataCheck.of(data, true).clean());
        assertEquals(List.of(), repair().restore(Optional.empty()));
    }
}
