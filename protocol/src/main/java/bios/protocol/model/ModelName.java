package bios.protocol.model;

import bios.protocol.Invalid;
import java.util.Locale;
import java.util.regex.Pattern;

/// The name under which a base model is served, e.g. `ultrasafe/usf-finance`.
public record ModelName(String value) {
    private static final Pattern GRAMMAR =
            Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95}){0,3}");

    public ModelName {
        if (value == null || !GRAMMAR.matcher(value).matches())
            throw new Invalid("base_model",
                    "'" + value + "' is not a model name; expected words of letters, digits,"
                    + " '.', '_' or '-' joined by '/', e.g. ultrasafe/usf-finance");
    }

    /// The last segment in lower case, with other characters replaced by '-': the prefix of run ids and
    /// the name of the model's sharding type. `ultrasafe/usf-finance` gives `usf-finance`.
    public String slug() {
        String last = value.substring(value.lastIndexOf('/') + 1).toLowerCase(Locale.ROOT);
        return last.replaceAll("[^a-z0-9]+", "-").replaceAll("^-|-$", "");
    }

    @Override public String toString() {
        return value;
    }
}
