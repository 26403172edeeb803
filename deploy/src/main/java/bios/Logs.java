package bios;

import ch.qos.logback.classic.LoggerContext;
import java.util.Locale;
import java.util.Set;
import org.slf4j.LoggerFactory;

/// Configures logging to stderr. `BIOS_LOG` is a level (`DEBUG`, `INFO`, `WARN`, `ERROR`), `json` for JSON
/// instead of key=value lines, or both, separated by a comma.
public final class Logs {
    private static final Set<String> LEVELS = Set.of("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "OFF");

    private Logs() {}

    /// Applies `BIOS_LOG`; must be called before the first log line. Throws [CommandFailed] for an unknown
    /// word.
    public static void configure(String setting) {
        for (String word : setting.split("[,\\s]+")) {
            if (word.isEmpty()) continue;
            if (word.equalsIgnoreCase("json") || word.equalsIgnoreCase("text"))
                System.setProperty("bios.log.format", word.toLowerCase(Locale.ROOT));
            else if (LEVELS.contains(word.toUpperCase(Locale.ROOT)))
                System.setProperty("bios.log.level", word.toUpperCase(Locale.ROOT));
            else throw new CommandFailed("BIOS_LOG=" + setting + ": '" + word
                    + "' is neither json nor text nor a level; expected DEBUG, INFO, WARN or ERROR,"
                    + " followed by ',json' for JSON lines");
        }
    }

    /// Adds this name as `node` to all following log lines.
    public static void node(String name) {
        if (LoggerFactory.getILoggerFactory() instanceof LoggerContext context)
            context.putProperty("node", name);
    }
}
