package bios.protocol.checkpoint;

import bios.protocol.Invalid;
import java.util.Set;
import java.util.regex.Pattern;

/// A checkpoint's name within its run: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, but not `weights` or
/// `sampler_weights`.
public record CheckpointName(String value) {
    private static final Pattern GRAMMAR = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}");
    private static final Set<String> RESERVED = Set.of("weights", "sampler_weights");

    public CheckpointName {
        if (value == null || !GRAMMAR.matcher(value).matches())
            throw new Invalid("name",
                    "'" + value + "' is not a checkpoint name; use 1 to 128 letters, digits, '.', '_'"
                    + " or '-', beginning with a letter or digit");
        if (RESERVED.contains(value))
            throw new Invalid("name", "'" + value + "' is reserved; choose another");
    }

    @Override public String toString() {
        return value;
    }
}
