package bios;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ch.qos.logback.classic.LoggerContext;
import ch.qos.logback.classic.joran.JoranConfigurator;
import ch.qos.logback.classic.util.LogbackMDCAdapter;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class LogsTest {
    @AfterEach void forget() {
        System.clearProperty("bios.log.format");
        System.clearProperty("bios.log.level");
    }

    /// What a line looks like under the program's own configuration.
    private static String line(String setting) throws Exception {
        Logs.configure(setting);
        PrintStream before = System.err;
        var written = new ByteArrayOutputStream();
        System.setErr(new PrintStream(written, true, StandardCharsets.UTF_8));
        var context = new LoggerContext();
        context.setMDCAdapter(new LogbackMDCAdapter());
        try {
            var configurator = new JoranConfigurator();
            configurator.setContext(context);
            configurator.doConfigure(LogsTest.class.getResource("/logback.xml"));
            context.putProperty("node", "worker-1");
            context.getLogger("bios.Test").atInfo().addKeyValue("run", "tiny-1").addKeyValue("position", 4)
                    .log("it {} \"well\"", "went");
            context.getLogger("bios.Test").debug("not at INFO");
        } finally {
            context.stop();
            System.setErr(before);
        }
        return written.toString(StandardCharsets.UTF_8);
    }

    @Test void aLineIsKeysAndValues() throws Exception {
        String line = line("");
        assertTrue(line.matches("time=\\S+ level=INFO node=worker-1 logger=bios.Test run=\"tiny-1\""
                + " position=\"4\" msg=\"it went 'well'\"\\R"), line);
    }

    @Test void aLineOfJsonSaysTheSame() throws Exception {
        String line = line("INFO,json");
        JsonNode json = new ObjectMapper().readTree(line);
        assertEquals("INFO", json.path("level").asText());
        assertEquals("worker-1", json.path("context").path("properties").path("node").asText());
        assertEquals("tiny-1", json.path("kvpList").get(0).path("run").asText());
        assertEquals("4", json.path("kvpList").get(1).path("position").asText());
        assertEquals("it went \"well\"", json.path("formattedMessage").asText());
        assertEquals(1, line.lines().count(), line);
    }

    @Test void aLevelCanBeGivenAndAWrongWordIsNamed() {
        Logs.configure("debug");
        assertEquals("DEBUG", System.getProperty("bios.log.level"));
        var refused = assertThrows(CommandFailed.class, () -> Logs.configure("jsno"));
        assertTrue(refused.getMessage().contains("'jsno'"), refused.getMessage());
    }
}
