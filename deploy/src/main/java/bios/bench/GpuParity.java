package bios.bench;

import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.worker.adapter.TrainingState;
import bios.worker.device.DType;
import bios.worker.device.Device;
import bios.worker.device.DeviceSettings;
import bios.worker.device.Devices;
import bios.worker.model.BaseModel;
import bios.worker.train.Evaluation;
import bios.worker.train.Trainer;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/// Compares a device with the CPU, and its results alone with those in company.
///
/// @param settings of the device that is checked
/// @param folder where models of random weights are written
record GpuParity(DeviceSettings settings, Path folder) {
    /// Largest ‖difference‖ / ‖CPU's result‖ of a verb whose operands are all fp32, and of one with bf16.
    private static final double VERB_FP32 = 1e-4;
    private static final double VERB_BF16 = 1e-2;
    /// Largest difference of log-probabilities of a model with activations in fp32 and in bf16.
    private static final double MODEL_FP32 = 0.02;
    private static final double MODEL_BF16 = 0.1;
    private static final int RANK = 8;
    private static final int STEPS = 4;

    private Device reference() {
        return Devices.open(settings.withDevice(DeviceSettings.CPU));
    }

    /// Every verb, compared with the CPU.
    void verbs(ObjectNode line, PrintStream out) {
        var failures = line.putArray("failures");
        ObjectNode errors = line.putObject("errors");
        try (Device cpu = reference(); Device device = Devices.open(settings)) {
            for (Map.Entry<String, GpuVerbs.Case> verb : GpuVerbs.all().entrySet()) {
                try {
                    double error = error(results(cpu, verb.getValue()), results(device, verb.getValue()));
                    boolean bf16 = verb.getKey().contains("BF16");
                    errors.put(verb.getKey(), error);
                    if (error <= (bf16 ? VERB_BF16 : VERB_FP32)) continue;
                    failures.add(verb.getKey());
                    out.printf(Locale.ROOT, "✗ %s: off by %.3g%n", verb.getKey(), error);
                } catch (RuntimeException failure) {
                    failures.add(verb.getKey());
                    out.println("✗ " + verb.getKey() + ": " + failure);
                }
            }
        }
    }

    private static List<float[]> results(Device on, GpuVerbs.Case verb) {
        try (GpuVerbs.Operand operand = new GpuVerbs.Operand(on)) {
            return verb.run(operand);
        }
    }

    /// The largest ‖a - b‖ / ‖a‖ of the results; NaN counts as infinite where only one is NaN.
    private static double error(List<float[]> expected, List<float[]> actual) {
        double largest = 0;
        for (int i = 0; i < expected.size(); i++) {
            double difference = 0;
            double size = 0;
            for (int j = 0; j < expected.get(i).length; j++) {
                double a = expected.get(i)[j];
                double b = actual.get(i)[j];
                if (Double.isNaN(a) && Double.isNaN(b)) continue;
                difference += (a - b) * (a - b);
                size += a * a;
            }
            double error = Math.sqrt(difference / Math.max(size, 1e-30));
            if (!(error <= largest)) largest = Double.isNaN(error) ? Double.POSITIVE_INFINITY : error;
        }
        return largest;
    }

    /// Log-probabilities of small models over a few optimizer steps, compared with the CPU.
    void models(ObjectNode line, PrintStream out) throws IOException {
        var failures = line.putArray("failures");
        for (String architecture : List.of("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")) {
            Shape shape = Shape.tiny(architecture);
            Path written = folder.resolve(shape.name());
            shape.write(written, true);
            try {
                List<float[]> expected = trained(settings.withDevice(DeviceSettings.CPU), written, DType.F32);
                for (DType type : GpuCheck.types()) {
                    double off = largest(expected, trained(settings, written, type));
                    line.put(architecture + " " + type, off);
                    if (off <= (type == DType.F32 ? MODEL_FP32 : MODEL_BF16)) continue;
                    failures.add(architecture + " " + type);
                    out.printf(Locale.ROOT, "✗ %s %s: log-probabilities off by %.3g%n", architecture, type,
                            off);
                }
            } finally {
                Setup.delete(written);
            }
        }
    }

    /// The log-probabilities of a few training steps, which follow the gradients.
    private static List<float[]> trained(DeviceSettings on, Path folder, DType type) {
        List<float[]> all = new ArrayList<>();
        try (Device device = Devices.open(on)) {
            BaseModel model = BaseModel.load(folder, new ModelName("check/model"), device, type);
            Workload workload = Workload.of(RANK, new int[] {70, 33, 9});
            Trainer trainer = new Trainer(model);
            try (TrainingState state = state(model, 0)) {
                for (int step = 0; step < STEPS; step++) {
                    all.addAll(trainer.evaluate(state, workload.operation(0,
                            model.spec().vocabularySize(), 1)).logprobs());
                    trainer.optimStep(state, Optional.of(AdamParams.DEFAULT)).complete();
                }
            }
            model.files().close();
        }
        return all;
    }

    private static TrainingState state(BaseModel model, long seed) {
        return TrainingState.createInitialized(Setup.adapter(RANK, seed), model.spec(), model.device());
    }

    private static double largest(List<float[]> expected, List<float[]> actual) {
        double largest = 0;
        for (int i = 0; i < expected.size(); i++)
            for (int j = 0; j < expected.get(i).length; j++) {
                double off = Math.abs(expected.get(i)[j] - (double) actual.get(i)[j]);
                if (!(off <= largest)) largest = Double.isNaN(off) ? Double.POSITIVE_INFINITY : off;
            }
        return largest;
    }

    /// Whether a run's results have the same bits alone, repeated, and in passes with others, and whether
    /// the kernels of the device agree in all bits where they have to.
    void bits(ObjectNode line, GpuCheck.Sizes sizes) throws IOException {
        var failures = line.putArray("failures");
        try (Device device = Devices.open(settings)) {
            new GpuAgreement(device, sizes.rows(), sizes.columns()).differences().forEach(failures::add);
        }
        Shape shape = Shape.tiny("Qwen3ForCausalLM");
        Path written = folder.resolve(shape.name());
        shape.write(written, true);
        try {
            for (DType type : GpuCheck.types()) {
                try (Device device = Devices.open(settings)) {
                    BaseModel model = BaseModel.load(written, new ModelName("check/bits"), device, type);
                    List<float[]> alone = together(model, 1);
                    if (!same(alone, together(model, 1))) failures.add("repeated " + type);
                    if (!same(alone, together(model, 5))) failures.add("in company " + type);
                    model.files().close();
                }
            }
        } finally {
            Setup.delete(written);
        }
    }

    /// The log-probabilities of run 0 over a few steps, each in one pass with `count` - 1 other runs.
    private static List<float[]> together(BaseModel model, int count) {
        Trainer trainer = new Trainer(model);
        List<TrainingState> states = new ArrayList<>();
        List<float[]> all = new ArrayList<>();
        try {
            for (int i = 0; i < count; i++) states.add(state(model, i));
            for (int step = 0; step < STEPS; step++) {
                List<Evaluation> evaluations = new ArrayList<>();
                for (int i = count - 1; i >= 0; i--)
                    evaluations.add(trainer.begin(states.get(i), Workload.of(RANK, new int[] {30 + i, 65})
                            .operation(0, model.spec().vocabularySize(), 7 + i)));
                trainer.pass(evaluations);
                for (Evaluation evaluation : evaluations)
                    if (evaluation == evaluations.getLast()) all.addAll(evaluation.finish().logprobs());
                    else evaluation.finish();
                for (TrainingState state : states)
                    trainer.optimStep(state, Optional.of(AdamParams.DEFAULT)).complete();
            }
        } finally {
            states.forEach(TrainingState::close);
        }
        return all;
    }

    /// Whether all bits are equal.
    static boolean same(List<float[]> one, List<float[]> other) {
        for (int i = 0; i < one.size(); i++) if (!Arrays.equals(one.get(i), other.get(i))) return false;
        return one.size() == other.size();
    }
}
