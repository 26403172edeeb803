package bios.worker.sample;

import bios.worker.model.SequenceInput;

/// The next tokens of a sequence in a pass.
///
/// @param count how many of its uncached tokens
record ScheduledTokens(SampledSequence sequence, int count) {
    SequenceInput input() {
        return new SequenceInput(sequence.next(count), sequence.cache().orElseThrow(),
                sequence.request.adapter);
    }
}
