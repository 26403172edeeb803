package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Fault;
import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.engine.EngineCommand.EngineReply;
import bios.protocol.model.LoraSpec;
import bios.protocol.sampling.SampleTask;
import bios.worker.model.Golden;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// A run is executed on the weights that it was created on, or not at all.
class BaseModelIdentityTest {
    private static final LoraSpec SMALL = new LoraSpec(4, 8, 1, List.copyOf(LoraSpec.ALL_LINEAR));
    @TempDir Path folder;

    private static String fingerprint(EngineHarness harness) {
        return harness.description().models().getFirst().fingerprint().orElseThrow();
    }

    @Test void aRunOfOtherWeightsIsNotOpened() {
        try (var harness = EngineHarness.open(folder)) {
            String own = fingerprint(harness);
            harness.unopened(1, SMALL, own).events().expectMessageClass(EngineEvent.Opened.class,
                    EngineHarness.TIMEOUT);
            Fault fault = harness.unopened(2, SMALL, own.substring(0, own.length() - 4) + "0000").events()
                    .expectMessageClass(EngineEvent.OpenFailed.class, EngineHarness.TIMEOUT).fault();
            assertEquals(Fault.server(EngineCommand.BASE_MODEL_CHANGED, fault.message()), fault);
            assertTrue(fault.message().contains("its weights differ"), fault.message());
            Fault both = harness.unopened(3, SMALL, "ab-cd").events()
                    .expectMessageClass(EngineEvent.OpenFailed.class, EngineHarness.TIMEOUT).fault();
            assertTrue(both.message().contains("its config.json and its weights differ"), both.message());
        }
    }

    @Test void aCheckpointRecordsTheWeightsAndItsSamplerIsRefusedOnOthers() {
        try (var harness = EngineHarness.open(folder)) {
            String own = fingerprint(harness);
            var run = harness.unopened(1, SMALL, own);
            run.events().expectMessageClass(EngineEvent.Opened.class, EngineHarness.TIMEOUT);
            CheckpointManifest manifest = run.save(EngineHarness.saveState("a"));
            assertEquals(Optional.of(own), manifest.baseFingerprint());
            var probe = harness.replies();
            SampleTask task = EngineHarness.task("t", Optional.of(manifest), 1);
            var foreign = new SampleTask.Adapter(manifest.contentId(), manifest.lora(), manifest.adapter(),
                    Optional.of("ab-cd"));
            harness.engine().tell(new EngineCommand.Sample(new SampleTask("t", task.baseModel(),
                    Optional.of(foreign), task.prompt(), task.params(), 1, 1, false, 0), probe.ref()));
            Fault fault = probe.expectMessageClass(EngineReply.RequestFailed.class, EngineHarness.TIMEOUT)
                    .fault();
            assertEquals("base_model_mismatch", fault.code());
            assertEquals(Fault.Kind.USER, fault.kind());
        }
    }

    @Test void anOperationThatFindsAFileChangedIsExecutedElsewhereOrLater() throws IOException {
        Path model = Files.createDirectories(folder.resolve("model"));
        for (String file : List.of("config.json", "model.safetensors"))
            Files.copy(Golden.of("qwen3").folder().resolve("model").resolve(file), model.resolve(file));
        try (var harness = EngineHarness.of(folder.resolve("store"), model)) {
            EngineHarness.Run run = harness.run(1, SMALL);
            run.all(EngineHarness.operations(1, 1, 0));
            Files.write(model.resolve("model.safetensors"), new byte[0]);
            assertEquals("run_not_open", run.fault(EngineHarness.gradient(1, 1)).code());
            Fault fault = harness.unopened(2, SMALL, Optional.empty()).events()
                    .expectMessageClass(EngineEvent.OpenFailed.class, EngineHarness.TIMEOUT).fault();
            assertEquals(EngineCommand.BASE_MODEL_CHANGED, fault.code());
            assertTrue(fault.message().contains("has 0 bytes"), fault.message());
            assertEquals(1, harness.description().unserved().size());
            assertEquals(0, harness.description().models().size());
        }
    }
}
