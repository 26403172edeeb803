package bios.worker.train;

import static bios.worker.device.TestDevices.read;
import static bios.worker.device.TestDevices.write;

import bios.protocol.model.LoraSpec;
import bios.protocol.model.TargetModule;
import bios.protocol.run.Datum;
import bios.protocol.run.LossFunction;
import bios.protocol.run.Operation.ForwardBackward;
import bios.protocol.run.TensorData;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Tensor;
import bios.worker.model.BaseModel;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;

/// Runs and operations made from seeds.
final class Examples {
    static final LoraSpec SMALL = new LoraSpec(4, 8, 1, List.of(TargetModule.values()));
    static final LoraSpec LARGE = new LoraSpec(19, 32, 2, List.copyOf(LoraSpec.ALL_LINEAR));

    private Examples() {}

    /// A new run whose B is not zero, the same for the same shape.
    static TrainingState run(LoraSpec lora, BaseModel model) {
        TrainingState state = TrainingState.createInitialized(lora, model.spec(), model.device());
        Random random = new Random(lora.rank());
        for (Tensor slab : state.adapter().weights().slabs()) {
            float[] values = read(model.device(), slab);
            for (int i = 0; i < values.length; i++)
                if (values[i] == 0) values[i] = (float) random.nextGaussian() * 0.05f;
            write(model.device(), slab, values);
        }
        return state;
    }

    /// Sequences of 1 to 128 tokens, the first of one token.
    static ForwardBackward operation(BaseModel model, long seed, int sequences, boolean forwardOnly) {
        Random random = new Random(seed);
        List<Datum> data = new ArrayList<>();
        int vocabulary = model.spec().vocabularySize();
        for (int s = 0; s < sequences; s++) {
            int n = s == 0 ? 1 : 2 + random.nextInt(Math.min(139, model.spec().contextLength() - 2));
            float[] weights = new float[n];
            for (int i = 0; i < n; i++) weights[i] = random.nextInt(3) == 0 ? 0 : random.nextFloat();
            data.add(datum(random.ints(n, 0, vocabulary).toArray(), random.longs(n, 0, vocabulary).toArray(),
                    weights));
        }
        return new ForwardBackward(data, LossFunction.CROSS_ENTROPY, Map.of(), forwardOnly);
    }

    static Datum datum(int[] tokens, long[] targets, float[] weights) {
        return new Datum(tokens,
                Map.of("weights", TensorData.of(weights), "target_tokens", TensorData.of(targets)));
    }
}
