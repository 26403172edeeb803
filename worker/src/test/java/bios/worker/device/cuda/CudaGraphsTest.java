package bios.worker.device.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.worker.adapter.Adapter;
import bios.worker.device.CudaEmulator;
import bios.worker.device.CudaSettings;
import bios.worker.device.DType;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;

/// Decode steps as graphs, on the emulated card: the bits of steps that are launched verb by verb, and memory
/// that is given back.
final class CudaGraphsTest {
    @Test void aDecodeStepThatIsOneGraphHasTheBitsOfItsVerbs() {
        var ended = CudaEmulator.java(Program.class, List.of("-Dbios.cuda.blocks=separate"), List.of(),
                Map.of("CUDA_EMULATOR_CHECK", "0", "CUDA_EMULATOR_CC", "90"), 900);
        assertEquals(0, ended.status(), ended.output());
        assertTrue(ended.output().contains("all agree"), ended.output());
        assertTrue(ended.output().lines().noneMatch(line -> line.contains("refused")
                || line.contains("have no graph")), ended.output());
    }

    /// Samples with and without graphs, and compares.
    static final class Program {
        private static final int TOKENS = 9;

        private Program() {}

        /// Prints `all agree`, or throws.
        public static void main(String[] arguments) {
            for (String name : List.of("llama-bf16", "qwen3"))
                for (DType activations : List.of(DType.BF16, DType.F32)) {
                    if (name.equals("llama-bf16") && activations == DType.F32) continue;
                    String without = run(name, activations, false);
                    String with = run(name, activations, true);
                    if (!without.equals(with)) throw new AssertionError(name + ": " + without + "\n" + with);
                }
            System.out.println("all agree");
        }

        private static String run(String name, DType activations, boolean graphs) {
            var golden = Golden.of(name);
            var settings = DeviceSettings.ofThreads(1).withDevice("cuda").withCuda(new CudaSettings(
                    List.of(), Optional.empty(), Long.MAX_VALUE, graphs));
            try (var device = (CudaDevice) Devices.open(settings);
                    BaseModel model = golden.load(device, activations);
                    Adapter adapter = golden.adapter(model);
                    Sampler sampler = new Sampler(model, Optional.empty(),
                            new SamplerSettings(16 << 20, 256, 64, 16))) {
                var results = new ArrayList<SampleResult>();
                results.addAll(all(sampler, model, List.of(5, 60, 3), Optional.of(adapter)));
                results.addAll(all(sampler, model, List.of(60, 4, 7), Optional.of(adapter)));
                // all go on to a second page at once, more pages than their graph has room for
                results.addAll(all(sampler, model, List.of(60, 60, 60, 60, 60), Optional.of(adapter)));
                long launches = device.graphLaunches();
                if (graphs != launches > 2 * (TOKENS - 4)) throw new AssertionError(launches + " launches");
                long before = device.memoryInUse();
                device.releaseUnused();
                if (graphs != device.memoryInUse() < before)
                    throw new AssertionError(before + " bytes, then " + device.memoryInUse());
                return bits(results);
            }
        }

        /// Decodes prompts of these lengths together; the adapter is every second one's.
        private static List<SampleResult> all(Sampler sampler, BaseModel model, List<Integer> lengths,
                Optional<Adapter> adapter) {
            for (int i = 0; i < lengths.size(); i++) {
                int[] prompt = new Random(i).ints(lengths.get(i), 3, model.spec().vocabularySize()).toArray();
                var params = new SamplingParams(Optional.of(TOKENS), Optional.empty(), List.of(), List.of(),
                        1, -1, 1);
                sampler.submit(new SampleTask("t" + i, model.info().name(), Optional.empty(), prompt, params,
                        1, 17, false, 0), i % 2 == 0 ? Optional.empty() : adapter);
            }
            var results = new ArrayList<SampleResult>();
            while (!sampler.idle()) sampler.step().forEach(f -> results.add(f.result()));
            return results;
        }

        private static String bits(List<SampleResult> results) {
            var text = new StringBuilder();
            for (var result : results) for (var s : result.sequences()) {
                int[] bits = new int[s.logprobs().length];
                for (int i = 0; i < bits.length; i++) bits[i] = Float.floatToIntBits(s.logprobs()[i]);
                text.append(Arrays.toString(s.tokens())).append(Arrays.toString(bits));
            }
            return text.toString();
        }
    }
}
