package bios.persistence.process;

import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/// How a process ended, as its supervisor saw it. The supervisor hands it to the next process in a variable
/// of the environment.
///
/// @param status as [Process#exitValue] gives it: that of a signal is 128 and its number
public record ProcessEnd(long pid, int status) {
    /// The variable of the environment.
    public static final String VARIABLE = "BIOS_PREVIOUS_END";
    /// Exit status of a process whose device is lost (EX_TEMPFAIL of sysexits.h): started again, it may work.
    public static final int DEVICE_LOST_STATUS = 75;
    private static final Pattern TEXT = Pattern.compile("(\\d{1,10}) (-?\\d{1,9})");
    private static final int SIGNALS = 128;

    /// The end of a process; empty if it runs.
    public static Optional<ProcessEnd> of(Process process) {
        return process.isAlive() ? Optional.empty()
                : Optional.of(new ProcessEnd(process.pid(), process.exitValue()));
    }

    /// What the supervisor of this process has handed to it; empty: nothing.
    public static Optional<ProcessEnd> ofPrevious() {
        return Optional.ofNullable(System.getenv(VARIABLE)).flatMap(ProcessEnd::parse);
    }

    /// Reads what [#toString] gives; empty if the text is something else.
    public static Optional<ProcessEnd> parse(String text) {
        Matcher parts = TEXT.matcher(text);
        return parts.matches() ? Optional.of(new ProcessEnd(Long.parseLong(parts.group(1)),
                Integer.parseInt(parts.group(2)))) : Optional.empty();
    }

    /// What the status says, in words.
    public String words() {
        return switch (status) {
            case 3 -> "status 3: Java had no memory left (ExitOnOutOfMemoryError)";
            case DEVICE_LOST_STATUS -> "status 75: its device was lost";
            case 134 -> "SIGABRT (134): a failure inside Java or a native library; see its hs_err file";
            case 137 -> "SIGKILL (137): the kernel had no memory left, or kill -9";
            case 139 -> "SIGSEGV (139): a failure inside a native library";
            case 143 -> "SIGTERM (143)";
            default -> status > SIGNALS ? "signal " + (status - SIGNALS) + " (" + status + ")"
                    : "status " + status;
        };
    }

    /// The value of the variable: pid and status.
    @Override public String toString() {
        return pid + " " + status;
    }
}
