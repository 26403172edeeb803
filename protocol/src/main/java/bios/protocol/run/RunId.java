package bios.protocol.run;

import bios.protocol.Invalid;
import java.util.regex.Pattern;

/// The id of a training run: `<model slug>-<12 or more lower-case hex digits>`, e.g.
/// `usf-finance-9f2c4be01a77`. Any node finds the run's sharding type from it.
public record RunId(String value) {
    private static final Pattern GRAMMAR = Pattern.compile("[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{12,64}");

    public RunId {
        if (value == null || value.length() > 200 || !GRAMMAR.matcher(value).matches())
            throw new Invalid("model_id",
                    "'" + value + "' is not a run id; expected <model>-<12 or more hex digits>");
    }

    /// The slug of the base model: all before the last '-'.
    public String slug() {
        return value.substring(0, value.lastIndexOf('-'));
    }

    @Override public String toString() {
        return value;
    }
}
