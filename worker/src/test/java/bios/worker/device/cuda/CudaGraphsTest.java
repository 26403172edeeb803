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
import bios.worker.device.Tensor;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.sample.Sampler;
import bios.worker.sample.SamplerSettings;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/// Decode steps as graphs, on the emulated card: the bits of steps that are launched verb by verb, few graphs
/// for sequences that come and go, and memory that is given back.
final class CudaGraphsTest {
    private static CudaEmulator.Ended run(Class<?> program, Map<String, String> environment) {
        var all = new HashMap<>(Map.of("CUDA_EMULATOR_CHECK", "0", "CUDA_EMULATOR_CC", "90"));
        all.putAll(environment);
        var ended = CudaEmulator.java(program, List.of("-Dbios.cuda.blocks=separate"), List.of(), all, 900);
        assertEquals(0, ended.status(), ended.output());
        assertTrue(ended.output().contains("all agree"), ended.output());
        return ended;
    }

    @Test void aDecodeStepThatIsOneGraphHasTheBitsOfItsVerbs() {
        var ended = run(Program.class, Map.of());
        assertTrue(ended.output().lines().noneMatch(line -> line.contains("refused")
                || line.contains("have no graph") || line.contains("one by one")), ended.output());
    }

    /// A graph of a faulty driver leaves out a kernel, from its first launch on or from its second.
    @ParameterizedTest @ValueSource(ints = {1, 2}) void graphsThatComputeOtherBitsAreTurnedOff(int launch) {
        var ended = run(Faulty.class, Map.of("CUDA_EMULATOR_FAULT", "graph@" + launch));
        assertTrue(ended.output().contains(launch + " launches"), ended.output());
        assertTrue(ended.output().contains("from now on, all kernels are launched one by one"),
                ended.output());
    }

    @Test void graphsGoWhenOthersNeedTheirMemory() {
        run(Short.class, Map.of());
    }

    @Test void aPassHasARowForEachOfItsSequencesAndAFewMore() {
        int[] rows = {1, 2, 3, 5, 8, 9, 17, 63, 64, 65, 97, 250};
        int[] padded = {1, 2, 4, 8, 8, 16, 24, 64, 64, 96, 128, 256};
        assertEquals(Arrays.stream(padded).boxed().toList(),
                Arrays.stream(rows).map(CudaGraphs::padded).boxed().toList());
    }

    /// A model on the emulated card and a sampler.
    private static final class Sampling implements AutoCloseable {
        final CudaDevice device;
        private final BaseModel model;
        private final Adapter adapter;
        private final Sampler sampler;

        Sampling(String name, DType activations, boolean graphs, long memoryBytes) {
            var golden = Golden.of(name);
            device = (CudaDevice) Devices.open(DeviceSettings.ofThreads(1).withDevice("cuda").withCuda(
                    CudaSettings.DEFAULT.withMemory(memoryBytes).withGraphs(graphs)));
            model = golden.load(device, activations);
            adapter = golden.adapter(model);
            sampler = new Sampler(model, Optional.empty(), new SamplerSettings(16 << 20, 256, 64, 16));
        }

        /// Decodes prompts of these lengths together; the adapter is every second one's, and every third one
        /// has the most likely tokens at its drawn positions.
        ///
        /// @param tokens of each
        String draw(List<Integer> lengths, List<Integer> tokens) {
            for (int i = 0; i < lengths.size(); i++) {
                int[] prompt = new Random(i).ints(lengths.get(i), 3, model.spec().vocabularySize()).toArray();
                var params = new SamplingParams(Optional.of(tokens.get(i)), Optional.empty(), List.of(),
                        List.of(), 1, -1, 1);
                sampler.submit(new SampleTask("t" + i, model.info().name(), Optional.empty(), prompt, params,
                        1, 17, false, 0, i % 3 == 0 ? 4 : 0),
                        i % 2 == 0 ? Optional.empty() : Optional.of(adapter));
            }
            var results = new ArrayList<SampleResult>();
            while (!sampler.idle()) sampler.step().forEach(f -> results.add(f.result()));
            return bits(results);
        }

        String draw(List<Integer> lengths, int tokens) {
            return draw(lengths, Collections.nCopies(lengths.size(), tokens));
        }

        private static String bits(List<SampleResult> results) {
            var text = new StringBuilder();
            for (var result : results) for (var s : result.sequences()) {
                int[] bits = new int[s.logprobs().length];
                for (int i = 0; i < bits.length; i++) bits[i] = Float.floatToIntBits(s.logprobs()[i]);
                text.append(Arrays.toString(s.tokens())).append(Arrays.toString(bits));
                s.topkLogprobs().ifPresent(rows -> text.append(top(s, rows)));
            }
            return text.toString();
        }

        /// The most likely tokens, among which a drawn one has its own log-probability.
        private static String top(SampleResult.Sequence s, List<List<SampleResult.TokenLogprob>> rows) {
            require(rows.size() == s.tokens().length, rows.size() + " rows");
            for (int i = 0; i < rows.size(); i++) {
                require(rows.get(i).size() == 4, rows.toString());
                for (int j = 0; j < 4; j++) {
                    SampleResult.TokenLogprob each = rows.get(i).get(j);
                    require(j == 0 || each.logprob() <= rows.get(i).get(j - 1).logprob(), rows.toString());
                    require(each.token() != s.tokens()[i] || each.logprob() == s.logprobs()[i],
                            rows.toString());
                }
            }
            return rows.toString();
        }

        @Override public void close() {
            sampler.close();
            adapter.close();
            model.close();
            device.close();
        }
    }

    private static void require(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
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
                    require(without.equals(with), name + ": " + without + "\n" + with);
                }
            System.out.println("all agree");
        }

        private static String run(String name, DType activations, boolean graphs) {
            try (var sampling = new Sampling(name, activations, graphs, Long.MAX_VALUE)) {
                var device = sampling.device;
                String bits = sampling.draw(List.of(5, 60, 3), TOKENS)
                        + sampling.draw(List.of(60, 4, 7), TOKENS)
                        // all go on to a second page at once, more pages than their graph has room for
                        + sampling.draw(List.of(60, 60, 60, 60, 60), TOKENS);
                long launches = device.graphLaunches();
                require(graphs == launches > 2 * (TOKENS - 4), launches + " launches");
                bits += comingAndGoing(sampling, graphs);
                long before = device.memoryInUse();
                device.releaseUnused();
                require(graphs == device.memoryInUse() < before,
                        before + " bytes, then " + device.memoryInUse());
                return bits;
            }
        }

        /// Eight sequences that end one after the other: passes of 8, 7, ... 1 rows are of 8, 4, 2 and 1.
        private static String comingAndGoing(Sampling sampling, boolean graphs) {
            sampling.device.releaseUnused();
            long captures = sampling.device.graphCaptures();
            String bits = sampling.draw(List.of(3, 4, 5, 6, 7, 8, 9, 10),
                    List.of(4, 6, 8, 10, 13, 16, 19, 23));
            long made = sampling.device.graphCaptures() - captures;
            require(graphs ? made > 0 && made <= 4 : made == 0, made + " graphs");
            return bits;
        }
    }

    /// Samples with graphs of a driver with a fault.
    static final class Faulty {
        private Faulty() {}

        /// Prints `all agree` and the launches of graphs, or throws.
        public static void main(String[] arguments) {
            List<String> bits = new ArrayList<>();
            for (boolean graphs : new boolean[] {false, true})
                try (var sampling = new Sampling("llama-bf16", DType.BF16, graphs, Long.MAX_VALUE)) {
                    bits.add(sampling.draw(List.of(5, 60, 3), 9) + sampling.draw(List.of(6, 2), 9));
                    if (graphs) System.out.println(sampling.device.graphLaunches() + " launches");
                    require(sampling.device.graphBytes() == 0, "graphs keep memory");
                }
            require(bits.get(0).equals(bits.get(1)), bits.toString());
            System.out.println("all agree");
        }
    }

    /// A card whose memory is taken by others while there are graphs.
    static final class Short {
        private static final long MEMORY = 128L << 20;

        private Short() {}

        /// Prints `all agree`, or throws.
        public static void main(String[] arguments) {
            try (var sampling = new Sampling("llama-bf16", DType.BF16, true, MEMORY)) {
                var device = sampling.device;
                String first = sampling.draw(List.of(5, 60, 3), 9);
                long kept = device.graphBytes();
                require(kept > 0, "no graphs");
                long free = device.memoryLimit() - device.memoryInUse();
                Tensor large = device.tensor(DType.F32, 1, Math.toIntExact((free + kept / 2) / 4));
                require(device.graphBytes() == 0, "graphs keep their memory");
                device.free(large);
                require(first.equals(sampling.draw(List.of(5, 60, 3), 9)), "other bits");
                require(device.graphBytes() > 0, "no graphs afterwards");
            }
            System.out.println("all agree");
        }
    }
}
