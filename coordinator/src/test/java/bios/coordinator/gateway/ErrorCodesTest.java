package bios.coordinator.gateway;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// Every word that an error can carry is explained in docs/reference/errors.md.
class ErrorCodesTest {
    private static final Path ROOT = Path.of("..");
    private static final Pattern FAULT =
            Pattern.compile("Fault\\s*\\.\\s*(?:user|server)\\(\\s*\"([a-z_]+)\"");

    @Test void everyCodeIsListedWithMeaningAndRemedy() throws IOException {
        var used = new TreeSet<>(List.of("malformed_http"));
        for (Code code : Code.values()) used.add(code.wireName());
        try (Stream<Path> sources = Files.walk(ROOT.resolve("coordinator/src/main/java"))) {
            for (Path source : sources.filter(path -> path.toString().endsWith(".java")).toList()) {
                Matcher fault = FAULT.matcher(Files.readString(source));
                while (fault.find()) used.add(fault.group(1));
            }
        }
        var listed = new TreeSet<String>();
        for (String line : Files.readAllLines(ROOT.resolve("docs/reference/errors.md"))) {
            Matcher row = Pattern.compile("\\| `([a-z_]+)` \\|.*\\|.*[a-z].*\\|.*[a-z].*\\|").matcher(line);
            if (row.matches()) assertTrue(listed.add(row.group(1)), row.group(1) + " is listed twice");
        }
        used.removeAll(listed);
        assertEquals(new TreeSet<String>(), used);
    }
}
