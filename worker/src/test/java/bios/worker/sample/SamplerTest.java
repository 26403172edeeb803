package bios.worker.sample;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.TestDevices.write;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.Fault;
import bios.protocol.model.LoraSpec;
import bios.protocol.sampling.SampleResult.StopReason;
import bios.protocol.sampling.SampleResult.TokenLogprob;
import bios.protocol.sampling.SampleResult;
import bios.protocol.sampling.SampleTask;
import bios.protocol.sampling.SamplingParams;
import bios.worker.adapter.Adapter;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceLost;
import bios.worker.device.OutOfDeviceMemory;
import bios.worker.device.TestDevices;
import bios.worker.model.BaseModel;
import bios.worker.model.Golden;
import bios.worker.model.KeyValuePages;
import bios.worker.model.RecordingDevice;
import bios.worker.model.RunBatch;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.function.Function;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class SamplerTest {
    private static final SamplerSettings ROOMY = new SamplerSettings(64 << 20, 256, 64, 16);
    /// Tokens are letters: for stop strings the text of a token is `a` + id % 26.
    private static final Function<int[], String> LETTERS = tokens -> {
        var text = new StringBuilder();
        for (int token : tokens) text.append((char) ('a' + token % 26));
        return text.toString();
    };
    private static Device device;
    private static BaseModel model;
    private static List<Optional<Adapter>> adapters;

    @BeforeAll static void load() {
        device = TestDevices.open(2);
        var golden = Golden.of("qwen3");
        model = golden.load(device);
        adapters = List.of(Optional.empty(), Optional.of(golden.adapter(model)),
                Optional.of(trained(new LoraSpec(8, 16, 5, golden.lora().targets()))));
    }

    @AfterAll static void close() {
        model.close();
        device.close();
    }

    @ParameterizedTest
    @ValueSource(strings = {"llama", "llama-bf16", "mistral", "qwen2-sliding", "qwen3-lm-head"})
    void greedyDecodingAgreesWithPyTorch(String name) {
        var golden = Golden.of(name);
        try (BaseModel own = golden.load(device); Adapter adapter = golden.adapter(own);
                Sampler sampler = new Sampler(own, Optional.empty(), ROOMY)) {
            int[] expected = Golden.ints(golden.json().get("greedy").get("tokens"));
            // PyTorch was configured to continue after the end token
            expected = Arrays.copyOf(expected, untilEnd(expected, own));
            SampleTask task = task(Golden.ints(golden.json().get("greedy").get("prompt")),
                    params(expected.length, 0));
            SampleResult result = all(sampler, List.of(task), List.of(Optional.of(adapter))).getFirst();
            assertArrayEquals(expected, result.sequences().getFirst().tokens());
            float[] logprobs = Arrays.copyOf(golden.values("greedy.logprobs"), expected.length);
            double tolerance = golden.exact() ? 4 * golden.noise("logprobs") + 1e-5 : 0.1;
            assertArrayEquals(logprobs, result.sequences().getFirst().logprobs(), (float) tolerance);
        }
    }

    @Test void logprobsHaveTheTrainersBits() {
        for (Optional<Adapter> adapter : adapters) {
            SampleTask task = with(task(prompt(1, 70), params(50, 1)), 1, true, 0);
            SampleResult result = alone(task, adapter);
            int[] drawn = result.sequences().getFirst().tokens();
            int[] whole = concat(task.prompt(), drawn);
            float[] trainer = trainerLogprobs(whole, adapter);
            assertArrayEquals(Arrays.copyOfRange(trainer, task.prompt().length - 1, trainer.length),
                    result.sequences().getFirst().logprobs());
            float[] prompt = result.promptLogprobs().orElseThrow();
            assertTrue(Float.isNaN(prompt[0]));
            assertArrayEquals(Arrays.copyOf(trainer, task.prompt().length - 1),
                    Arrays.copyOfRange(prompt, 1, prompt.length));
        }
    }

    /// At any temperature, with top-k and top-p: the model's own beside those of the distribution drawn from.
    @Test void theModelsOwnLogprobsHaveTheTrainersBitsAtAnyTemperature() {
        for (var params : List.of(new SamplingParams(Optional.of(30), Optional.empty(), List.of(), List.of(),
                0.7, -1, 1), new SamplingParams(Optional.of(30), Optional.empty(), List.of(), List.of(), 1,
                5, 1), new SamplingParams(Optional.of(30), Optional.empty(), List.of(), List.of(), 1.5, 40,
                0.9))) {
            SampleTask task = task(prompt(1, 20), params);
            var drawn = alone(task, adapters.get(1)).sequences().getFirst();
            float[] trainer = trainerLogprobs(concat(task.prompt(), drawn.tokens()), adapters.get(1));
            float[] own = drawn.modelLogprobs().orElseThrow();
            assertArrayEquals(Arrays.copyOfRange(trainer, 19, trainer.length), own);
            assertFalse(Arrays.equals(own, drawn.logprobs()));
        }
        for (double temperature : new double[] {0, 1})
            assertTrue(alone(task(prompt(1, 20), params(5, temperature)), adapters.get(1)).sequences()
                    .getFirst().modelLogprobs().isEmpty());
    }

    /// Weights that are finite, but with which the model's numbers overflow.
    @Test void aRequestWhoseLogitsAreNotFiniteFailsAloneWithTheReason() {
        SampleTask good = with(task(prompt(1, 30), params(10, 1)), 2, true, 3);
        String expected = bits(alone(good, adapters.get(1)));
        try (Adapter far = trained(new LoraSpec(8, 16, 5, adapters.get(1).get().lora().targets()));
                Sampler sampler = new Sampler(model, Optional.empty(), ROOMY)) {
            for (var slab : far.weights().slabs()) device.fill(slab, 1e30f);
            for (SampleTask bad : List.of(task(prompt(2, 30), params(10, 1)),
                    with(task(prompt(3, 30), params(10, 0)), 3, false, 0),
                    with(task(prompt(4, 30), params(10, 0.7)), 2, true, 2))) {
                long failing = sampler.submit(bad, Optional.of(far));
                long fine = sampler.submit(good, adapters.get(1));
                List<Sampler.Failed> failed = new ArrayList<>();
                Map<Long, String> finished = new HashMap<>();
                while (!sampler.idle()) {
                    Sampler.Ended ended = sampler.complete(sampler.launch());
                    failed.addAll(ended.failed());
                    ended.finished().forEach(f -> finished.put(f.id(), bits(f.result())));
                }
                assertEquals(List.of(failing), failed.stream().map(Sampler.Failed::id).toList());
                assertEquals("non_finite", failed.getFirst().why().code());
                assertEquals(Map.of(fine, expected), finished);
                assertEquals(sampler.pages().limit(), sampler.pages().free());
            }
        }
    }

    @Test void aResultDoesNotDependOnOtherRequestsBudgetsOrPages() {
        List<SampleTask> tasks = new ArrayList<>();
        List<Optional<Adapter>> used = new ArrayList<>();
        for (int i = 0; i < 9; i++) {
            var params = new SamplingParams(Optional.of(5 + 17 * (i % 4)), Optional.empty(), i % 3 == 0
                    ? List.of("qu", "za") : List.of(),
                    List.of(), i % 5 * 0.5, i % 2 == 0 ? -1 : 20, i % 3 == 1 ? 0.9 : 1);
            tasks.add(with(task(prompt(i, 1 + 17 * (i % 5)), params), 1 + i % 3, i % 2 == 0, i % 4));
            used.add(adapters.get(i % 3));
        }
        List<String> alone = new ArrayList<>();
        for (int i = 0; i < tasks.size(); i++) alone.add(bits(alone(tasks.get(i), used.get(i))));
        assertTrue(new HashSet<>(alone).size() == alone.size());
        var rooms = List.of(new SamplerSettings(64 << 20, 7, 3, 2), ROOMY, tight(2), tight(5));
        for (var settings : rooms.subList(0, rooms.size() / TestDevices.oneOf(4)))
            try (Sampler sampler = new Sampler(model, Optional.of(LETTERS), settings)) {
                assertEquals(alone, all(sampler, tasks, used).stream().map(SamplerTest::bits).toList(),
                        settings.toString());
                assertEquals(sampler.pages().limit(), sampler.pages().free());
            }
    }

    @Test void ifPagesRunOutRequestsWaitAndTheEarliestContinues() {
        try (Sampler sampler = new Sampler(model, Optional.empty(), tight(2))) {
            for (int i = 0; i < 5; i++) sampler.submit(task(prompt(i, 40), params(60, 1)), Optional.empty());
            assertEquals(5, sampler.queued());
            List<Long> order = new ArrayList<>();
            while (!sampler.idle()) sampler.step().forEach(f -> order.add(f.id()));
            assertEquals(List.of(1L, 2L, 3L, 4L, 5L), order);
            assertEquals(0, sampler.queued());
        }
    }

    @Test void sequencesOfARequestDifferAndTheSameSeedGivesThemAgain() {
        SampleTask task = with(task(prompt(3, 20), params(12, 1)), 4, false, 0);
        SampleResult first = alone(task, adapters.get(1));
        assertEquals(bits(first), bits(alone(task, adapters.get(1))));
        List<String> texts = first.sequences().stream().map(s -> Arrays.toString(s.tokens())).distinct()
                .toList();
        assertEquals(4, texts.size());
        var other = new SampleTask(task.id(), task.baseModel(), task.adapter(), task.prompt(), task.params(),
                4, task.seed() + 1, false, 0);
        assertNotEquals(bits(first), bits(alone(other, adapters.get(1))));
    }

    @Test void aSequenceEndsAtAStopTokenAndIncludesIt() {
        int[] prompt = prompt(4, 10);
        int[] free = alone(task(prompt, params(40, 1)), Optional.empty()).sequences().getFirst().tokens();
        assertEquals(40, free.length);
        var byToken = alone(task(prompt, params(40, List.of(), List.of(free[7]))), Optional.empty())
                .sequences().getFirst();
        int at = first(free, free[7]);
        assertArrayEquals(Arrays.copyOf(free, at + 1), byToken.tokens());
        assertEquals(StopReason.STOP, byToken.stopReason());
        String stop = LETTERS.apply(Arrays.copyOfRange(free, 20, 24));
        var byText = alone(task(prompt, params(40, List.of("no such text", stop), List.of())),
                Optional.empty()).sequences().getFirst();
        int end = LETTERS.apply(free).indexOf(stop) + 4;
        assertArrayEquals(Arrays.copyOf(free, end), byText.tokens());
        assertEquals(StopReason.STOP, byText.stopReason());
        assertEquals(end, byText.logprobs().length);
    }

    @Test void whereNothingStopsItASequencePassesTheModelsEndTokens() {
        SampleResult.Sequence ended = null;
        int[] prompt = {};
        for (int seed = 0; ended == null; seed++) {
            prompt = prompt(seed, 6);
            var found = alone(task(prompt, params(60, List.of(), List.of())), Optional.empty())
                    .sequences().getFirst();
            if (found.stopReason() == StopReason.STOP) ended = found;
        }
        var passed = alone(task(prompt, params(60, List.of(), List.of(SamplingParams.NO_STOP))),
                Optional.empty()).sequences().getFirst();
        assertEquals(60, passed.tokens().length);
        assertEquals(StopReason.LENGTH, passed.stopReason());
        assertArrayEquals(ended.tokens(), Arrays.copyOf(passed.tokens(), ended.tokens().length));
    }

    @Test void withoutMaxTokensASequenceContinuesToTheContextsEnd() {
        int[] prompt = prompt(8, model.spec().contextLength() - 9);
        var open = new SamplingParams(Optional.empty(), Optional.empty(), List.of(), List.of(), 1, -1, 1);
        var sequence = alone(task(prompt, open), Optional.empty()).sequences().getFirst();
        assertEquals(9, sequence.tokens().length);
        assertEquals(StopReason.LENGTH, sequence.stopReason());
    }

    @Test void theTopTokensOfAPromptPositionAreSortedAndIncludeTheChosenOnesLogprob() {
        SampleTask task = with(task(prompt(6, 90), params(1, 0)), 1, true, model.spec().vocabularySize());
        SampleResult result = alone(task, adapters.get(2));
        List<List<TokenLogprob>> best = result.topkPromptLogprobs().orElseThrow();
        assertEquals(90, best.size());
        assertEquals(List.of(), best.getFirst());
        for (int i = 1; i < 90; i++) {
            int token = task.prompt()[i];
            float own = best.get(i).stream().filter(t -> t.token() == token).findFirst().orElseThrow()
                    .logprob();
            assertEquals(result.promptLogprobs().orElseThrow()[i], own);
            double sum = 0;
            for (int j = 0; j < best.get(i).size(); j++) {
                sum += Math.exp(best.get(i).get(j).logprob());
                assertTrue(j == 0 || best.get(i).get(j).logprob() <= best.get(i).get(j - 1).logprob());
            }
            assertEquals(1, sum, 1e-5);
        }
    }

    @Test void theTopTokensOfDrawnPositionsAreTheModelsAndIncludeTheDrawnOnes() {
        int vocabulary = model.spec().vocabularySize();
        for (double temperature : new double[] {0, 0.5, 1}) {
            SampleTask task = drawnTop(with(task(prompt(6, 20), params(9, temperature)), 3, false, 0),
                    vocabulary);
            SampleResult result = alone(task, adapters.get(2));
            assertEquals(bits(alone(drawnTop(task, 0), adapters.get(2))), bits(drawn(result)));
            for (SampleResult.Sequence s : result.sequences()) {
                float[] own = s.modelLogprobs().orElse(s.logprobs());
                List<List<TokenLogprob>> top = s.topkLogprobs().orElseThrow();
                assertEquals(s.tokens().length, top.size());
                for (int i = 0; i < top.size(); i++) {
                    int token = s.tokens()[i];
                    assertEquals(own[i], top.get(i).stream().filter(t -> t.token() == token).findFirst()
                            .orElseThrow().logprob());
                    assertEquals(vocabulary, top.get(i).stream().map(TokenLogprob::token).distinct().count());
                    for (int j = 1; j < vocabulary; j++)
                        assertTrue(top.get(i).get(j).logprob() <= top.get(i).get(j - 1).logprob());
                }
            }
            SampleResult few = alone(drawnTop(task, 4), adapters.get(2));
            for (int i = 0; i < 3; i++) assertEquals(result.sequences().get(i).topkLogprobs().orElseThrow()
                    .stream().map(row -> row.subList(0, 4)).toList(),
                    few.sequences().get(i).topkLogprobs().orElseThrow());
        }
    }

    @Test void theTopTokensOfDrawnPositionsAreThoseOfTheSameTextAsAPrompt() {
        for (int adapter : new int[] {0, 2}) {
            SampleTask task = drawnTop(with(task(prompt(6, 20), params(12, 0.7)), 1, false, 0), 7);
            SampleResult.Sequence drawn = alone(task, adapters.get(adapter)).sequences().getFirst();
            SampleTask scored = with(task(concat(task.prompt(), drawn.tokens()), params(1, 0)), 1, true, 7);
            SampleResult prompt = alone(scored, adapters.get(adapter));
            int n = drawn.tokens().length;
            assertEquals(prompt.topkPromptLogprobs().orElseThrow().subList(20, 20 + n),
                    drawn.topkLogprobs().orElseThrow());
            assertArrayEquals(Arrays.copyOfRange(prompt.promptLogprobs().orElseThrow(), 20, 20 + n),
                    drawn.modelLogprobs().orElseThrow());
        }
    }

    @Test void theTopTokensOfDrawnPositionsDependOnNothingElseInTheBatch() {
        var tasks = new ArrayList<SampleTask>();
        var given = new ArrayList<Optional<Adapter>>();
        for (int i = 0; i < 12; i++) {
            SampleTask task = with(task(prompt(i, 5 + 7 * i % 31), params(6 + i, 1)), 1 + i % 3, false,
                    i % 4);
            tasks.add(drawnTop(task, List.of(0, 3, 3, 5, 3).get(i % 5)));
            given.add(adapters.get(i % adapters.size()));
        }
        List<String> alone = new ArrayList<>();
        for (int i = 0; i < tasks.size(); i++) alone.add(bits(alone(tasks.get(i), given.get(i))));
        for (SamplerSettings settings : List.of(new SamplerSettings(1 << 24, 64, 16, 3), tight(2)))
            try (Sampler sampler = new Sampler(model, Optional.empty(), settings)) {
                assertEquals(alone, all(sampler, tasks, given).stream().map(SamplerTest::bits).toList());
            }
    }

    private static SampleTask drawnTop(SampleTask t, int k) {
        return new SampleTask(t.id(), t.baseModel(), t.adapter(), t.prompt(), t.params(), t.numSamples(),
                t.seed(), t.promptLogprobs(), t.topkPromptLogprobs(), k);
    }

    /// The same without the likeliest tokens.
    private static SampleResult drawn(SampleResult result) {
        return new SampleResult(result.sequences().stream().map(s -> new SampleResult.Sequence(s.tokens(),
                s.logprobs(), s.stopReason(), s.modelLogprobs())).toList(), result.promptLogprobs(),
                result.topkPromptLogprobs());
    }

    @Test void logprobsAreThoseOfTheDistributionThatIsDrawnFrom() {
        int[] prompt = prompt(7, 15);
        var all = alone(with(task(concat(prompt, new int[] {0}), params(1, 0)), 1, false,
                model.spec().vocabularySize()), Optional.empty());
        List<TokenLogprob> plain = all.topkPromptLogprobs().orElseThrow().getLast();
        for (int topK : new int[] {-1, 1, 3}) {
            var hot = alone(task(prompt, new SamplingParams(Optional.of(1), Optional.empty(), List.of(),
                    List.of(), 2, topK, 1)), Optional.empty()).sequences().getFirst();
            double kept = plain.subList(0, topK == -1 ? plain.size() : topK).stream()
                    .mapToDouble(t -> Math.exp(t.logprob() / 2.0)).sum();
            TokenLogprob drawn = plain.stream().filter(t -> t.token() == hot.tokens()[0]).findFirst()
                    .orElseThrow();
            assertEquals(drawn.logprob() / 2 - Math.log(kept), hot.logprobs()[0], 1e-5);
            assertEquals(drawn.logprob(), hot.modelLogprobs().orElseThrow()[0]);
        }
    }

    @Test void requestsThatCanNeverFitAreRefusedWithTheNumbers() {
        try (Sampler sampler = new Sampler(model, Optional.empty(), tight(1))) {
            int context = model.spec().contextLength();
            Fault everywhere = sampler.refusal(task(prompt(1, 10), params(context, 1))).orElseThrow();
            assertEquals(Fault.Kind.USER, everywhere.kind());
            Fault here = sampler.refusal(task(prompt(1, 60), params(9, 1))).orElseThrow();
            assertEquals(Fault.Kind.SERVER, here.kind());
            assertEquals("out_of_memory", here.code());
            assertTrue(refusal(sampler, task(new int[0], params(1, 1))).contains("empty"));
            assertTrue(refusal(sampler, task(new int[] {1, model.spec().vocabularySize()}, params(1, 1)))
                    .contains("at position 1"));
            assertTrue(refusal(sampler, task(prompt(1, 10), params(context, 1))).contains("context of "
                    + context));
            assertTrue(refusal(sampler, task(prompt(1, 60), params(9, 1))).contains("64 tokens"));
            assertTrue(refusal(sampler,
                    task(prompt(1, 9), params(9, List.of("x"), List.of()))).contains("tokenizer"));
            assertEquals(Optional.empty(), sampler.refusal(task(prompt(1, 60), params(4, 1))));
            String long1 = refusal(sampler, task(prompt(1, 65), params(1, 1)));
            assertTrue(long1.contains("prompt") && !long1.contains("max_tokens"), long1);
        }
    }

    @Test void aSequenceThatFillsTheContextIsScored() {
        int[] prompt = prompt(3, model.spec().contextLength());
        float[] trainer = trainerLogprobs(prompt, Optional.empty());
        for (var tokens : List.of(Optional.of(1), Optional.<Integer>empty())) {
            var params = new SamplingParams(tokens, Optional.empty(), List.of(), List.of(), 0, -1, 1);
            SampleResult result = alone(with(task(prompt, params), 2, true, 0), Optional.empty());
            float[] scored = result.promptLogprobs().orElseThrow();
            assertArrayEquals(trainer, Arrays.copyOfRange(scored, 1, scored.length));
            assertEquals(1, result.sequences().getLast().tokens().length);
        }
    }

    @Test void requestsOfAFailedPassAreCancelledAndOthersContinue() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel own = Golden.of("qwen3").load(test.device());
                    Sampler sampler = new Sampler(own, Optional.empty(),
                            new SamplerSettings(64 << 20, 256, 2, 16))) {
                long first = sampler.submit(with(task(prompt(1, 20), params(9, 1)), 3, false, 0),
                        Optional.empty());
                SampleTask second = task(prompt(2, 20), params(9, 1));
                sampler.step();
                long id = sampler.submit(second, Optional.empty());
                test.refuseAfter(20);
                assertThrows(OutOfDeviceMemory.class, sampler::launch);
                assertEquals(List.of(first), sampler.cancelFailed());
                assertEquals(1, sampler.queued());
                assertEquals(sampler.pages().limit(), sampler.pages().free());
                List<Sampler.Finished> done = new ArrayList<>();
                while (!sampler.idle()) done.addAll(sampler.step());
                assertEquals(List.of(id), done.stream().map(Sampler.Finished::id).toList());
                assertEquals(bits(alone(second, Optional.empty())), bits(done.getFirst().result()));
            }
        }
    }

    @Test void outOfMemoryAtAnyAllocationChangesNothingAndARetryGivesTheSameBits() {
        // they need more pages than there are, so some are evicted
        List<SampleTask> tasks = List.of(task(prompt(2, 60), params(30, 1)),
                task(prompt(1, 60), params(30, 0)),
                with(task(prompt(1, 70), params(9, 1)), 2, true, 3));
        List<Optional<Adapter>> none = Collections.nCopies(3, Optional.empty());
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel own = Golden.of("qwen3").load(test.device())) {
                List<String> expected;
                try (Sampler sampler = new Sampler(own, Optional.of(LETTERS), tight(3))) {
                    expected = all(sampler, tasks, none).stream().map(SamplerTest::bits).toList();
                }
                try (Sampler sampler = new Sampler(own, Optional.of(LETTERS), tight(3))) {
                    Map<Long, String> results = new HashMap<>();
                    for (SampleTask task : tasks) sampler.submit(task, Optional.empty());
                    int refusals = 0;
                    for (int n = 0; !sampler.idle(); ) {
                        var pages = sampler.pages();
                        int queued = sampler.queued();
                        test.refuseAfter(n);
                        try {
                            LaunchedDecode pass = sampler.launch();
                            test.refuseNothing();
                            sampler.complete(pass).finished()
                                    .forEach(f -> results.put(f.id(), bits(f.result())));
                            n = Math.min(n, 7);      // every allocation of the first pass, some of the later
                        } catch (OutOfDeviceMemory _) {
                            assertEquals(pages, sampler.pages());
                            assertEquals(queued, sampler.queued());
                            n++;
                            refusals++;
                        }
                    }
                    assertTrue(refusals > 50, refusals + " refusals");
                    assertEquals(expected, results.keySet().stream().sorted().map(results::get).toList());
                    assertEquals(sampler.pages().limit(), sampler.pages().free());
                }
            }
        }
    }

    @Test void aSamplerThatRestsHasNoMemoryOfPagesAndGivesTheSameBitsAfterwards() {
        SampleTask task = with(task(prompt(3, 20), params(30, 1)), 2, true, 0);
        try (Sampler sampler = new Sampler(model, Optional.of(LETTERS), ROOMY)) {
            String first = bits(all(sampler, List.of(task), List.of(Optional.empty())).getFirst());
            sampler.releaseUnused();
            device.releaseUnused();
            long rested = device.memoryInUse();
            assertEquals(first, bits(all(sampler, List.of(task), List.of(Optional.empty())).getFirst()));
            assertTrue(device.memoryInUse() > rested);
            sampler.releaseUnused();
            device.releaseUnused();
            assertEquals(rested, device.memoryInUse());
        }
    }

    @Test void aPassWhoseResultsAreLostMayBeLaunchedAgain() {
        SampleTask task = with(task(prompt(1, 70), params(9, 1)), 2, true, 2);
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel own = Golden.of("qwen3").load(test.device());
                    Sampler sampler = new Sampler(own, Optional.of(LETTERS), ROOMY)) {
                sampler.submit(task, Optional.empty());
                List<Sampler.Finished> done = new ArrayList<>();
                while (!sampler.idle()) {
                    var pages = sampler.pages();
                    test.loseReadback();
                    assertThrows(DeviceLost.class, sampler::step);
                    assertEquals(pages, sampler.pages());
                    done.addAll(sampler.step());
                }
                assertEquals(bits(alone(task, Optional.empty())), bits(done.getFirst().result()));
            }
        }
    }

    @Test void withoutMemoryForMorePagesSequencesAlternateAndOneThatCannotStartFailsWithTheNumbers() {
        SampleTask task = task(prompt(1, 60), params(60, 1));
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel own = Golden.of("qwen3").load(test.device());
                    Sampler sampler = new Sampler(own, Optional.empty(), tight(20))) {
                test.refusePagesBeyond(2);
                for (int i = 0; i < 4; i++) sampler.submit(task, Optional.empty());
                List<String> results = new ArrayList<>();
                while (!sampler.idle()) sampler.step().forEach(f -> results.add(bits(f.result())));
                assertEquals(Collections.nCopies(4, bits(alone(task, Optional.empty()))), results);
            }
            try (BaseModel own = Golden.of("qwen3").load(test.device());
                    Sampler sampler = new Sampler(own, Optional.empty(), tight(20))) {
                test.refusePagesBeyond(1);
                long small = sampler.submit(task(prompt(1, 60), params(4, 1)), Optional.empty());
                long grows = sampler.submit(task, Optional.empty());
                long large = sampler.submit(task(prompt(1, 70), params(4, 1)), Optional.empty());
                long other = sampler.submit(task(prompt(1, 60), params(4, 1)), Optional.empty());
                List<Long> done = new ArrayList<>();
                List<Long> failed = new ArrayList<>();
                for (int step = 0; !sampler.idle(); step++) try {
                    assertTrue(step < 100, "a request waits for ever");
                    sampler.step().forEach(f -> done.add(f.id()));
                } catch (OutOfDeviceMemory e) {
                    assertTrue(e.needed() > 0);
                    failed.addAll(sampler.cancelFailed());
                }
                assertEquals(List.of(small, other), done);
                assertEquals(List.of(grows, large), failed);
            }
        }
    }

    @Test void aDecodePassIsOneUploadThenVerbsThenOneReadbackAndNothingBlocks() {
        try (Device cpu = TestDevices.open(1)) {
            RecordingDevice test = new RecordingDevice(cpu);
            try (BaseModel own = Golden.of("qwen3").load(test.device());
                    Sampler sampler = new Sampler(own, Optional.empty(), ROOMY)) {
                sampler.submit(with(task(prompt(1, 70), params(5, 1)), 3, true, 2), Optional.empty());
                sampler.submit(task(prompt(2, 20), params(5, 0)), Optional.empty());
                while (!sampler.idle()) {
                    test.calls();
                    LaunchedDecode pass = sampler.launch();
                    List<String> calls = test.calls();
                    assertEquals(1, calls.stream().filter("upload"::equals).count());
                    assertEquals(1, calls.stream().filter("readback"::equals).count());
                    assertEquals("readback", calls.getLast());
                    for (String data : List.of("upload", "slots", "sequences", "draws"))
                        assertTrue(calls.lastIndexOf(data) < calls.indexOf("repeat"), data);
                    // a device that repeats a recorded pass is not given its verbs again, but to compare
                    assertEquals(calls.stream().filter("embed"::equals).count() * own.spec().layers(),
                            calls.stream().filter("prepareHeads"::equals).count());
                    for (String waits : List.of("read", "write", "floats", "ints", "doubles", "copy"))
                        assertFalse(calls.contains(waits), waits);
                    sampler.complete(pass);
                    for (String call : test.calls())
                        assertTrue(List.of("floats", "ints", "copyPage", "growTo").contains(call), call);
                }
            }
        }
    }

    @Test void aCacheInHalfPrecisionChangesLogprobsByItsRoundingOnly() {
        SampleTask task = with(task(prompt(1, 90), params(1, 0)), 1, true, 0);
        var half = new SamplerSettings(64 << 20, DType.BF16, 256, 64, 16);
        try (Sampler sampler = new Sampler(model, Optional.empty(), half)) {
            float[] exact = alone(task, Optional.empty()).promptLogprobs().orElseThrow();
            float[] rounded = all(sampler, List.of(task), List.of(Optional.empty())).getFirst()
                    .promptLogprobs().orElseThrow();
            double worst = 0;
            for (int i = 1; i < exact.length; i++)
                worst = Math.max(worst, Math.abs((double) exact[i] - rounded[i]));
            // keys and values are off by at most 2^-9 of themselves; scores and outputs by as much
            assertTrue(worst > 0 && worst < 0.1, "off by " + worst);
        }
    }

    // ---- helpers ----

    private static String refusal(Sampler sampler, SampleTask task) {
        return sampler.refusal(task).orElseThrow().message();
    }

    /// A cache of this many pages.
    private static SamplerSettings tight(int pages) {
        return new SamplerSettings(pages * KeyValuePages.pageBytes(model.spec(), DType.F32), 64, 64, 16);
    }

    private static SampleResult alone(SampleTask task, Optional<Adapter> adapter) {
        try (Sampler sampler = new Sampler(model, Optional.of(LETTERS), ROOMY)) {
            return all(sampler, List.of(task), List.of(adapter)).getFirst();
        }
    }

    private static List<SampleResult> all(Sampler sampler, List<SampleTask> tasks,
            List<Optional<Adapter>> adapters) {
        Map<Long, SampleResult> results = new HashMap<>();
        List<Long> tickets = new ArrayList<>();
        for (int i = 0; i < tasks.size(); i++) {
            tickets.add(sampler.submit(tasks.get(i), adapters.get(i)));
            // some join later
            if (i % 2 == 1) sampler.step().forEach(f -> results.put(f.id(), f.result()));
        }
        while (!sampler.idle()) sampler.step().forEach(f -> results.put(f.id(), f.result()));
        return tickets.stream().map(results::get).toList();
    }

    private static float[] trainerLogprobs(int[] tokens, Optional<Adapter> adapter) {
        int n = tokens.length - 1;
        var batch = new RunBatch(adapter, List.of(Arrays.copyOf(tokens, n)),
                Arrays.copyOfRange(tokens, 1, n + 1), Optional.empty());
        return model.runPass(List.of(batch), List.of(Optional.empty())).getFirst();
    }

    /// An adapter whose B is not zero.
    private static Adapter trained(LoraSpec lora) {
        Adapter adapter = Adapter.createInitialized(lora, model.spec(), device);
        var random = new Random(9);
        for (var slab : adapter.weights().slabs()) {
            float[] values = read(device, slab);
            for (int i = 0; i < values.length; i++) values[i] += (float) (0.05 * random.nextGaussian());
            write(device, slab, values);
        }
        return adapter;
    }

    private static SampleTask task(int[] prompt, SamplingParams params) {
        return new SampleTask("t", model.info().name(), Optional.empty(), prompt, params, 1, 17, false, 0);
    }

    private static SampleTask with(SampleTask t, int samples, boolean promptLogprobs, int topk) {
        return new SampleTask(t.id(), t.baseModel(), t.adapter(), t.prompt(), t.params(), samples, t.seed(),
                promptLogprobs, topk);
    }

    private static SamplingParams params(int tokens, double temperature) {
        return new SamplingParams(Optional.of(tokens), Optional.empty(), List.of(), List.of(), temperature,
                -1, 1);
    }

    private static SamplingParams params(int tokens, List<String> stops, List<Integer> stopTokens) {
        return new SamplingParams(Optional.of(tokens), Optional.empty(), stops, stopTokens, 1, -1, 1);
    }

    private static int[] prompt(long seed, int length) {
        return new Random(seed).ints(length, 3, model.spec().vocabularySize()).toArray();
    }

    private static int untilEnd(int[] tokens, BaseModel of) {
        for (int i = 0; i < tokens.length; i++) if (of.spec().endTokens().contains(tokens[i])) return i + 1;
        return tokens.length;
    }

    private static int first(int[] tokens, int token) {
        for (int i = 0; i < tokens.length; i++) if (tokens[i] == token) return i;
        throw new AssertionError();
    }

    private static int[] concat(int[] a, int[] b) {
        int[] whole = Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, whole, a.length, b.length);
        return whole;
    }

    private static String bits(SampleResult result) {
        var text = new StringBuilder();
        for (var s : result.sequences()) {
            text.append(Arrays.toString(s.tokens())).append(bits(s.logprobs())).append(s.stopReason())
                    .append(bits(s.modelLogprobs().orElse(new float[0])));
            s.topkLogprobs().ifPresent(rows -> text.append(bits(rows)));
        }
        result.promptLogprobs().ifPresent(p -> text.append(" prompt ").append(bits(p)));
        text.append(bits(result.topkPromptLogprobs().orElse(Collections.emptyList())));
        return text.toString();
    }

    private static String bits(List<List<TokenLogprob>> rows) {
        var text = new StringBuilder();
        rows.forEach(row -> row.forEach(t ->
                text.append(t.token()).append(':').append(Float.floatToIntBits(t.logprob())).append(' ')));
        return text.toString();
    }

    private static String bits(float[] values) {
        int[] bits = new int[values.length];
        for (int i = 0; i < bits.length; i++) bits[i] = Float.floatToIntBits(values[i]);
        return Arrays.toString(bits);
    }
}
