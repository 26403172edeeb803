package bios.worker.adapter;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.AdamParams;
import bios.worker.adapter.FactorLayout.Part;
import bios.worker.device.Device;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.TestDevices;
import bios.worker.kernel.AdamW;
import bios.worker.load.ModelFolder;
import bios.worker.load.ModelRefused;
import bios.worker.load.ModelSpec;
import bios.worker.load.NotFinite;
import bios.worker.load.Safetensors;
import bios.worker.load.StagingBuffer;
import bios.worker.load.TensorStream;
import bios.worker.load.TestTensors;
import bios.worker.load.TestTensors.Values;
import bios.worker.model.Golden;
import bios.worker.model.RecordingDevice;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

/// States as streams: the files of earlier versions byte by byte, and invalid files.
class StateStreamTest {
    private static final LoraSpec LORA = new LoraSpec(3, 7.5, 11,
            List.of(TargetModule.V, TargetModule.Q, TargetModule.DOWN, TargetModule.HEAD));
    private static final ModelSpec MODEL = spec();
    private static final Device ON = TestDevices.open(1);

    private static ModelSpec spec() {
        ModelFolder model = ModelFolder.open(Golden.of("qwen3").folder().resolve("model"));
        model.tensors().close();
        return model.spec();
    }

    @AfterAll static void close() {
        ON.close();
    }

    private static byte[] stored(String name) throws IOException {
        return Files.readAllBytes(Path.of("src/test/resources/golden-states/" + name + ".safetensors"));
    }

    @Test void filesOfEarlierVersionsAreReadAndWrittenByteForByte() throws IOException {
        try (TrainingState state = StateFiles.restore(stored("point"), MODEL, ON)) {
            assertEquals(1, state.accumulatedOperations());
            assertEquals(2, state.steps());
            assertArrayEquals(stored("point"), StateFiles.point(state));
            assertArrayEquals(stored("adapter"), StateFiles.adapter(state));
            assertArrayEquals(stored("optimizer"), StateFiles.optimizer(state));
            try (TrainingState loaded = StateFiles.load(stored("adapter"), Optional.of(stored("optimizer")),
                    state.steps(), state.optimizerSettings(), LORA, MODEL, ON)) {
                state.dropGradient();
                assertArrayEquals(StateFiles.point(state), StateFiles.point(loaded));
            }
        }
    }

    @Test void writingTheStateItselfGivesTheBytesOfACopy() throws IOException {
        try (TrainingState state = StateFiles.restore(stored("point"), MODEL, ON)) {
            var out = new ByteArrayOutputStream();
            try (StateSnapshot live = state.live(StateSnapshot.Content.RECOVERY_POINT)) {
                assertEquals(0, live.deviceBytes());
                live.writeRecoveryPoint(out, new StagingBuffer());
                assertEquals(out.size(), live.recoveryPointBytes());
            }
            assertArrayEquals(stored("point"), out.toByteArray());
        }
    }

    @Test void aCopyIsNotChangedByLaterSteps() throws IOException {
        try (TrainingState state = StateFiles.restore(stored("point"), MODEL, ON)) {
            var out = new ByteArrayOutputStream();
            try (StateSnapshot copy = state.snapshot(StateSnapshot.Content.RECOVERY_POINT)) {
                assertTrue(copy.deviceBytes() >= state.bytes() / 2);
                state.finish(state.step(state.optimizerSettings()));
                copy.writeRecoveryPoint(out, new StagingBuffer());
            }
            assertArrayEquals(stored("point"), out.toByteArray());
        }
    }

    @Test void everyTruncationIsRefusedAndLeavesNothingOnTheDevice() throws IOException {
        byte[] whole = stored("adapter");
        long before = ON.memoryInUse();
        for (int n = 0; n < whole.length; n += n < 4000 ? 97 : 411) {
            int bytes = n;
            byte[] cut = Arrays.copyOf(whole, bytes);
            assertThrows(ModelRefused.class, () -> StateFiles.load(cut, Optional.empty(), 0,
                    AdamParams.DEFAULT, LORA, MODEL, ON).close(), bytes + " bytes");
            // The stream ends before the size of the file in the header.
            assertThrows(ModelRefused.class, () -> StateFiles.loadCut(whole, bytes, LORA, MODEL, ON).close());
        }
        assertEquals(before, ON.memoryInUse());
    }

    /// Checkpoints with a number that is not finite are refused by its name and place. A recovery point is
    /// restored as it is, since only a load over it can mend the run; it cannot be saved.
    @Test void whatIsNotFiniteIsRefusedByNameAndNeverSaved() throws IOException {
        for (String file : List.of("adapter", "optimizer")) {
            String name = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"
                    + (file.equals("optimizer") ? ".exp_avg_sq" : "");
            byte[] bad = spoilt(file, name, 7, Float.POSITIVE_INFINITY);
            byte[] adapter = file.equals("adapter") ? bad : stored("adapter");
            byte[] optimizer = file.equals("optimizer") ? bad : stored("optimizer");
            String refused = assertThrows(NotFinite.class, () -> StateFiles.load(adapter,
                    Optional.of(optimizer), 2, AdamParams.DEFAULT, LORA, MODEL, ON)).getMessage();
            assertTrue(refused.contains("tensor '" + name + "' has Infinity at [2, 1]"), refused);
        }
        assertThrows(NotFinite.class, () -> StateFiles.readAdapter(spoilt("adapter",
                "base_model.model.lm_head.lora_A.weight", 0, Float.NaN), LORA, MODEL, ON));
        byte[] point = spoilt("point", "base_model.model.lm_head.lora_A.weight", 0, Float.NaN);
        try (TrainingState state = StateFiles.restore(point, MODEL, ON)) {
            assertThrows(NotFinite.class, () -> StateFiles.adapter(state));
            StateFiles.optimizer(state);
            assertArrayEquals(point, StateFiles.point(state));
        }
        byte[] sum = spoilt("point", "base_model.model.lm_head.lora_A.weight.grad", 0, Float.NaN);
        try (TrainingState state = StateFiles.restore(sum, MODEL, ON)) {
            TrainingState.Step step = state.step(state.optimizerSettings());
            assertEquals(AdamW.GRADIENT, Integer.lowestOneBit(step.notFinite()));
            state.finish(step);
            assertEquals(2, state.steps());
            assertArrayEquals(stored("adapter"), StateFiles.adapter(state));
        }
    }

    /// A file with one other number.
    private static byte[] spoilt(String file, String tensor, int index, float value) throws IOException {
        byte[] bytes = stored(file);
        try (TensorStream stream = StateFiles.stream(bytes)) {
            var range = stream.tensors().stream().filter(t -> t.name().equals(tensor)).findFirst()
                    .orElseThrow();
            var all = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
            all.putFloat(8 + (int) all.getLong(0) + (int) range.begin() + 4 * index, value);
        }
        return bytes;
    }

    @Test void aMissingMisshapedOrUnknownTensorIsRefusedByNameBeforeAnyAllocation() throws IOException {
        String name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
        var test = new RecordingDevice(ON);
        for (String what : List.of("missing", "misshaped", "foreign", "dtype")) {
            TreeMap<String, Values> tensors = tensors("adapter");
            switch (what) {
                case "missing" -> tensors.remove(name);
                case "misshaped" -> {
                    Values v = tensors.get(name);
                    tensors.put(name, new Values(v.values(), 0, v.shape().reversed()));
                }
                case "foreign" -> tensors.put(name.replace("q_proj", "k_proj"), tensors.get(name));
                default -> {}
            }
            byte[] file = TestTensors.bytes(tensors, Map.of());
            if (what.equals("dtype")) {
                String text = new String(file, StandardCharsets.ISO_8859_1);
                file = text.replaceFirst("F32", "I32").getBytes(StandardCharsets.ISO_8859_1);
            }
            byte[] wrong = file;
            String message = assertThrows(ModelRefused.class, () -> StateFiles.readAdapter(wrong, LORA, MODEL,
                    test.device()).close()).getMessage();
            assertTrue(message.contains(what.equals("foreign") ? "k_proj" : "'base_model."), message);
        }
        assertEquals(0, test.tensors());
        assertTrue(test.calls().isEmpty());
    }

    private static TreeMap<String, Values> tensors(String file) throws IOException {
        TreeMap<String, Values> tensors = new TreeMap<>();
        try (Safetensors read = Safetensors.of(file, stored(file))) {
            for (String name : read.names()) {
                long[] shape = read.entry(name).shape().stream().mapToLong(Long::longValue).toArray();
                tensors.put(name, new Values(read.floats(name, shape), 0,
                        Arrays.stream(shape).mapToInt(Math::toIntExact).boxed().toList()));
            }
        }
        return tensors;
    }

    @Test void aRefusalAtAnyAllocationLeavesNothingOnTheDevice() throws IOException {
        var test = new RecordingDevice(ON);
        byte[] point = stored("point");
        int refused = 0;
        for (boolean done = false; !done; ) {
            test.refuseAfter(refused);
            try {
                StateFiles.restore(point, MODEL, test.device()).close();
                done = true;
            } catch (OutOfDeviceMemory _) {
                refused++;
            }
            test.refuseNothing();
            assertEquals(0, test.tensors());
        }
        assertEquals(4 * FactorLayout.of(LORA, MODEL).slabs().size(), refused);
    }

    @Test void sitesNumberTheMatricesOfTheModel() {
        try (Factors factors = new Factors(LORA, MODEL, ON)) {
            Map<Integer, Part> expected = new HashMap<>();
            for (Part p : factors.layout().parts())
                expected.put(Factors.site(p.layer(), p.target()), p);
            for (int site = 0; site < factors.sites(); site++)
                assertEquals(expected.containsKey(site), factors.at(site).isPresent());
            int head = Factors.site(MODEL.layers(), TargetModule.HEAD);
            assertEquals(MODEL.vocabularySize(), factors.at(head).orElseThrow().b().columns());
            assertEquals(LORA.rank(), factors.at(head).orElseThrow().rank());
        }
    }
}
