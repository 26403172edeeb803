package bios.coordinator.run;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.coordinator.run.RunEvent.LoadResolved;
import bios.coordinator.run.RunEvent.OperationFailed;
import bios.coordinator.run.RunEvent.RunCreated;
import bios.coordinator.run.TrainingRun.Decision;
import bios.protocol.checkpoint.BlobId;
import bios.protocol.checkpoint.BlobRef;
import bios.protocol.checkpoint.CheckpointKind;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.checkpoint.CheckpointName;
import bios.protocol.run.AdamParams;
import bios.protocol.run.OperationKind;
import bios.protocol.run.RunConfig;
import bios.protocol.run.RunId;
import bios.protocol.run.StoredOperation;
import com.typesafe.config.ConfigFactory;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/// What a run makes of the fingerprint of its base model.
class BaseFingerprintTest {
    private static final RunConfig BARE = RunHarness.config(true);

    private static RunConfig on(String fingerprint) {
        return new RunConfig(BARE.run(), BARE.owner(), BARE.baseModel(), BARE.lora(), true, BARE.parent(),
                BARE.userMetadata(), BARE.session(), BARE.createdAtMillis(), Optional.of(fingerprint));
    }

    private static CheckpointManifest checkpoint(Optional<String> fingerprint) {
        var blob = new BlobRef(new BlobId("runs/usf-finance-000000000000/checkpoints", "ab".repeat(32)), 9);
        return new CheckpointManifest(new RunId("usf-finance-000000000000"), CheckpointKind.TRAINING,
                Optional.of(new CheckpointName("a")), BARE.baseModel(), BARE.lora(), "cd", blob,
                Optional.of(blob), 1, AdamParams.DEFAULT, "adamw", "{}", Optional.empty(), 5,
                Optional.empty(), fingerprint);
    }

    @Test void aRunThatIsCreatedAgainKeepsItsFirstFingerprint() {
        TrainingRun run = TrainingRun.NONE.apply(new RunCreated(on("a-b")));
        assertInstanceOf(Decision.Duplicate.class, run.create(on("a-c")));
        assertInstanceOf(Decision.Duplicate.class, run.create(BARE));
        assertEquals(Optional.of("a-b"), run.config().orElseThrow().fingerprint());
    }

    @Test void aCheckpointOfOtherWeightsIsNotLoaded() {
        TrainingRun run = TrainingRun.NONE.apply(new RunCreated(on("a-b")));
        var decision = run.submit(1, new StoredOperation.Inline(OperationKind.LOAD_STATE, new byte[] {1}),
                "d", 1, Optional.empty(), new TrainingRun.Backlog(0, 0, 0, 0), 0,
                RunSettings.from(ConfigFactory.load()));
        for (RunEvent event : assertInstanceOf(Decision.Accept.class, decision).events())
            run = run.apply(event);
        var failed = assertInstanceOf(OperationFailed.class,
                run.load(1, checkpoint(Optional.of("a-c")), true));
        assertEquals("base_model_mismatch", failed.why().code());
        assertTrue(failed.why().message().contains("a-c") && failed.why().message().contains("a-b"),
                failed.why().message());
        assertInstanceOf(LoadResolved.class, run.load(1, checkpoint(Optional.of("a-b")), true));
        assertInstanceOf(LoadResolved.class, run.load(1, checkpoint(Optional.empty()), true));
    }
}
