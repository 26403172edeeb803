package bios.worker.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;

import bios.protocol.checkpoint.CheckpointManifest;
import bios.protocol.engine.EngineCommand;
import bios.protocol.engine.EngineCommand.EngineEvent;
import bios.protocol.model.LoraSpec;
import bios.protocol.run.Operation;
import bios.worker.device.DeviceLost;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// An [Engine] whose device is lost.
class DeviceLostTest {
    private static final LoraSpec SMALL = new LoraSpec(4, 8, 1, List.copyOf(LoraSpec.ALL_LINEAR));

    @TempDir Path folder;

    /// All operations that use the device, one after another; returns when the device is lost.
    private static void work(EngineHarness harness, EngineHarness.Run run, CheckpointManifest saved) {
        EngineHarness.operations(1, 2, 0).forEach(run::send);
        run.send(EngineHarness.load(saved, true), Optional.of(saved));
        run.send(new Operation.SaveSamplerWeights(Optional.empty(), Optional.empty(), Optional.empty()));
        harness.engine().tell(new EngineCommand.TakeRecoveryPoint(run.id(), 1, run.replyTo()));
        harness.engine().tell(new EngineCommand.Sample(
                EngineHarness.task("a", Optional.of(saved), 5), harness.recorder()));
        harness.unopened(2, SMALL, Optional.empty());
    }

    private void lost(String name, UnaryOperator<bios.worker.device.Device> kind, int verbs)
            throws Exception {
        var until = new AtomicInteger(Integer.MAX_VALUE);
        try (var harness = EngineHarness.withDevice(folder.resolve(name + verbs),
                device -> EngineHarness.losing(kind.apply(device), until))) {
            EngineHarness.Run run = harness.run(1, SMALL);
            CheckpointManifest saved = run.save(EngineHarness.saveState("s"));
            until.set(verbs);
            work(harness, run, saved);
            Throwable cause = harness.awaitFailure();
            assertEquals("fell off the bus", assertInstanceOf(DeviceLost.class, cause).getMessage());
            for (EngineEvent event : run.received()) assertFalse(event instanceof EngineEvent.Failed
                    || event instanceof EngineEvent.OpenFailed
                    || event instanceof EngineEvent.RecoveryPointFailed, event::toString);
            for (var reply : harness.received())
                assertFalse(reply instanceof EngineCommand.EngineReply.RequestFailed, reply::toString);
        }
    }

    @Test void theLossOfTheDeviceAtAnyVerbFailsNoOperationAndStopsTheEngine() throws Exception {
        for (int verbs : new int[] {0, 1, 2, 5, 40, 150, 400, 700}) lost("host", device -> device, verbs);
    }

    @Test void theLossOfADeviceWithAsynchronousReadbackFailsNoOperation() throws Exception {
        for (int verbs : new int[] {0, 3, 90, 350}) lost("discrete", EngineHarness::discrete, verbs);
    }

    /// A hanging driver must not keep the process alive.
    @Test void aLostDeviceWhoseCloseHangsDoesNotKeepTheProcessAlive() throws Exception {
        var until = new AtomicInteger(Integer.MAX_VALUE);
        var hanging = new CountDownLatch(1);
        try (var harness = EngineHarness.withDevice(folder,
                device -> EngineHarness.hangingClose(EngineHarness.losing(device, until), hanging))) {
            EngineHarness.Run run = harness.run(1, SMALL);
            until.set(0);
            run.send(EngineHarness.gradient(1, 1));
            assertInstanceOf(DeviceLost.class, harness.awaitFailure());
            harness.awaitEnd();
            for (int i = 0; i < 1000 && deviceThreads() > 0; i++) harness.replies().expectNoMessage();
            assertEquals(0, deviceThreads());
        } finally {
            hanging.countDown();
        }
    }

    private static long deviceThreads() {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(t -> t.getName().equals("device-engine") && !t.isDaemon()).count();
    }
}
