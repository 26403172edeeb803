package bios.worker.engine;

import bios.protocol.model.LoraSpec;
import bios.worker.adapter.TrainingState;
import bios.worker.load.Tokenizer;
import bios.worker.model.BaseModel;
import bios.worker.sample.Sampler;
import bios.worker.train.NonFinite;
import bios.worker.train.Trainer;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;

/// A base model on the device with its trainer and its sampler. Only the device's thread uses it, except
/// what never changes: the model's description and shape, [Sampler#refusal] and the tokenizer.
///
/// @param requests by their ids in the sampler
record LoadedModel(BaseModel model, Trainer trainer, Sampler sampler, Optional<Tokenizer> tokenizer,
        Map<Long, PendingSample> requests) {
    /// Most bytes of the state of a run of this shape.
    long runBytes(LoraSpec lora) {
        return TrainingState.mostBytes(lora, model.spec());
    }

    LoadedModel(BaseModel model, NonFinite nonFinite, Sampler sampler, Optional<Tokenizer> tokenizer) {
        this(model, new Trainer(model, nonFinite), sampler, tokenizer, new HashMap<>());
    }
}
