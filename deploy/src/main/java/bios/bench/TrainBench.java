package bios.bench;

import bios.CommandFailed;
import bios.protocol.run.AdamParams;
import bios.protocol.run.Operation;
import bios.worker.adapter.TrainingState;
import bios.worker.model.BaseModel;
import bios.worker.train.Evaluation;
import bios.worker.train.Trainer;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/// Measures how fast the engine trains: `forward_backward` of random tokens and `optim_step`.
///
/// @param steps number of measured steps of each workload, alternating with the workload that it is compared
///     with
/// @param warmUp number of steps before them
/// @param peer a peer that is run afterwards
/// @param busy whether another process keeps a core busy during the measurement
/// @param profile whether to report the cost of each operation of the device
/// @param guard time limit of the measurements in this process
public record TrainBench(Setup setup, int steps, int warmUp, Optional<Peer> peer, boolean busy,
        boolean profile, Guard guard) {

    /// Measures a batch of equal lengths, and compares it with `other` (sequences, tokens of each).
    public Report equal(int batch, int length, Optional<int[]> other) throws IOException {
        Workload workload = Workload.of(setup.rank(), Lengths.equal(batch, length));
        if (profile && other.isPresent())
            throw new CommandFailed("--profile looks at one batch; leave --beside out");
        Optional<Workload> beside = other.map(o -> Workload.of(setup.rank(), Lengths.equal(o[0], o[1])));
        return measure(workload, beside, report -> {
            report.line().put("batch", batch).put("seq", length);
            other.ifPresent(o -> report.line().put("beside", o[0] + "x" + o[1]));
            peer.ifPresent(p -> report.peer(() -> p.run(setup.shape(), setup.bf16(), setup.rank(),
                    List.of("--batch", "" + batch, "--seq", "" + length, "--steps", "" + steps)),
                    "train_tok_s"));
        });
    }

    /// Measures 64 sequences of mixed lengths, and compares them with as many of equal lengths.
    public Report mixed(long seed) throws IOException {
        if (profile) throw new CommandFailed("--profile looks at one batch; leave --mixed out");
        int[] lengths = Lengths.mixed(seed);
        return measure(Workload.of(setup.rank(), lengths),
                Optional.of(Workload.of(setup.rank(), Lengths.levelled(lengths))),
                report -> report.line().put("batch", lengths.length).put("lengths", "mixed")
                        .put("beside", "equal lengths"));
    }

    /// Measures several runs with one sequence each, and compares them with one run with all sequences.
    public Report tenants(int count, int length) throws IOException {
        if (profile) throw new CommandFailed("--profile looks at one batch; leave --tenants out");
        Workload tenants = Workload.tenants(count, length);
        return measure(tenants, Optional.of(tenants.merged()),
                report -> report.line().put("tenants", count).put("seq", length)
                        .put("beside", "one run of rank " + tenants.merged().runs().getFirst().rank()));
    }

    private interface Describe {
        void in(Report report);
    }

    private Report measure(Workload workload, Optional<Workload> beside, Describe describe)
            throws IOException {
        Profiler[] profiler = new Profiler[1];
        try (OptionalBusy _ = OptionalBusy.of(busy)) {
            Report report = guard.run("ours train", () -> setup.measure("train", device -> {
                if (!profile && beside.isEmpty()) return device;
                profiler[0] = new Profiler(device);
                return profiler[0].proxy();
            }, (model, line) -> {
                line.line().put("tokens", workload.tokens()).put("busy", busy).put("weights_mb",
                        setup.shape().bytes(setup.bf16()) >> 20);
                time(model, workload, beside, line, Optional.ofNullable(profiler[0]));
            }));
            describe.in(report);
            return report;
        }
    }

    /// A busy process, or none.
    private interface OptionalBusy extends AutoCloseable {
        static OptionalBusy of(boolean busy) {
            if (!busy) return () -> {};
            BusyProcess process = BusyProcess.start();
            return process::close;
        }

        @Override void close();
    }

    private void time(BaseModel model, Workload workload, Optional<Workload> beside, Report report,
            Optional<Profiler> profiler) {
        List<Double> seconds = new ArrayList<>();
        List<Double> others = new ArrayList<>();
        double attention = 0;
        long peak;
        List<Profiler.Line> profiled = List.of();
        try (Training runs = new Training(model, workload)) {
            for (int step = 0; step < warmUp; step++) runs.step(step);
            profiler.ifPresent(Profiler::clear);
            for (int step = 0; beside.isEmpty() && step < steps; step++)
                seconds.add(runs.step(warmUp + step));
            if (profile) profiled = profiler.orElseThrow().lines();
            peak = Report.peakMebibytes();      // before the other workload and the ceiling allocate memory
            if (beside.isPresent())
                attention = alternate(model, runs, seconds, beside.get(), others, profiler.orElseThrow());
        }
        double median = Percentiles.of(seconds).median();
        double rate = workload.tokens() / median;
        report.line().put("train_tok_s", Report.round(rate)).put("step_s", Report.three(median))
                .put("peak_rss_mb", peak);
        if (beside.isPresent()) compare(report, workload, rate, beside.get(),
                Percentiles.of(others).median(), attention);
        limits(report, workload, rate, profiled, seconds);
    }

    /// Adds the comparison with the other workload: `ratio_by_work` is predicted from the operations of the
    /// two, `ratio_by_time` from the other one's time if only attention's share grows, in proportion to its
    /// operations.
    ///
    /// @param step seconds of a step of the other workload
    /// @param attention seconds of attention in it
    private void compare(Report report, Workload workload, double rate, Workload beside, double step,
            double attention) {
        Work mine = workload.work(setup.shape());
        Work other = beside.work(setup.shape());
        double tokens = (double) workload.tokens() / beside.tokens();
        double growth = mine.attention() / other.attention() / tokens;
        report.line().put("beside_tok_s", Report.round(beside.tokens() / step))
                .put("ratio_to_beside", Report.three(rate * step / beside.tokens()))
                .put("ratio_by_work", Report.three(other.all() / mine.all() * tokens))
                .put("ratio_by_time", Report.three(step / (step + (growth - 1) * attention)));
    }

    /// Alternates steps of both workloads; returns the seconds of attention in a step of the other workload.
    private double alternate(BaseModel model, Training runs, List<Double> seconds, Workload beside,
            List<Double> others, Profiler profiler) {
        double attention = 0;
        try (Training other = new Training(model, beside)) {
            for (int step = 0; step < warmUp; step++) other.step(step);
            for (int step = 0; step < steps; step++) {
                profiler.clear();
                others.add(other.step(warmUp + step));
                attention += profiler.lines().stream().filter(line -> line.verb().startsWith("attention"))
                        .mapToDouble(Profiler.Line::seconds).sum();
                seconds.add(runs.step(warmUp + step));
            }
        }
        return attention / steps;
    }

    private void limits(Report report, Workload workload, double rate, List<Profiler.Line> profiled,
            List<Double> steps) {
        Work work = workload.work(setup.shape());
        try (Limits limits = Limits.of(setup.shape(), setup.bf16(), setup.threads())) {
            Limits.Rates rates = limits.training(workload.tokens());
            rates.all().forEach((type, flops) -> report.line().put(
                    "onednn_" + type.name().toLowerCase(Locale.ROOT) + "_gflops", Report.round(flops / 1e9)));
            double ceiling = workload.tokens() * rates.best() / work.all();
            double base = workload.tokens() * rates.best() / work.base();
            report.line().put("step_gflop", Report.round(work.all() / 1e9))
                    .put("ceiling_tok_s", Report.round(ceiling)).put("share", Report.three(rate / ceiling))
                    .put("ceiling_base_tok_s", Report.round(base))
                    .put("share_base", Report.three(rate / base));
            if (!profiled.isEmpty())
                ProfileTable.add(report, profiled, steps, rates.best(), Limits.readRate(setup.threads()));
        }
    }

    /// The runs of a workload on a model, with new adapters.
    static final class Training implements AutoCloseable {
        private final Trainer trainer;
        private final Workload workload;
        private final List<TrainingState> states = new ArrayList<>();

        Training(BaseModel model, Workload workload) {
            trainer = new Trainer(model);
            this.workload = workload;
            for (Workload.Run run : workload.runs())
                states.add(TrainingState.createInitialized(Setup.adapter(run.rank(), states.size()),
                        model.spec(),
                        model.device()));
        }

        /// Executes one step of all runs together; returns its seconds.
        double step(long seed) {
            List<Operation.ForwardBackward> operations = new ArrayList<>();
            int vocabulary = trainer.model().spec().vocabularySize();
            for (int i = 0; i < states.size(); i++) operations.add(workload.operation(i, vocabulary, seed));
            long begin = System.nanoTime();
            List<Evaluation> evaluations = new ArrayList<>();
            for (int i = 0; i < states.size(); i++)
                evaluations.add(trainer.begin(states.get(i), operations.get(i)));
            for (List<Evaluation> left = evaluations; !left.isEmpty();
                    left = evaluations.stream().filter(e -> !e.done()).toList())
                trainer.pass(trainer.fitting(left, Integer.MAX_VALUE));
            for (Evaluation evaluation : evaluations) evaluation.finish();
            for (TrainingState state : states)
                trainer.optimStep(state, Optional.of(AdamParams.DEFAULT)).complete();
            return (System.nanoTime() - begin) * 1e-9;
        }

        @Override public void close() {
            states.forEach(TrainingState::close);
        }
    }
}
