package bios;

import ch.qos.logback.classic.LoggerContext;
import java.util.Locale;
import java.util.Set;
import org.slf4j.LoggerFactory;

/// How log lines look, on stderr: `BIOS_LOG` is a level (`DEBUG`, `INFO`, `WARN`, `ERROR`), `json` for JSON
/// instead of key=value lines, or both with a comma between them.
public final class Logs {
    private static final Set<String> LEVELS = Set.of("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF");

    private Logs() {}

    /// Takes `BIOS_LOG`, before the first line of the log. [CommandFailed] names a word that it does not
    /// know.
    public static void begin(String setting) {
        for (String word : setting.split("[,\\s]+")) {
            if (word.isEmpty()) continue;
            if (word.equalsIgnoreCase("json") || word.equalsIgnoreCase("text"))
                System.setProperty("bios.log.format", word.toLowerCase(Locale.ROOT));
            else if (LEVELS.contains(word.toUpperCase(Locale.ROOT)))
                System.setProperty("bios.log.level", word.toUpperCase(Locale.ROOT));
            else throw new CommandFailed("BIOS_LOG=" + setting + ": '" + word
                    + "' is neither json nor text nor a level; expected DEBUG, INFO, WARN or ERROR,"
                    + " with ',json' for lines of JSON");
        }
    }

    /// Every line from now on carries this name as `node`.
    public static void node(String name) {
        if (LoggerFactory.getILoggerFactory() instanceof LoggerContext context)
            context.putProperty("node", name);
    }
}
