package bios.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.protocol.client.Request;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletionStage;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/// What callers of the client see: no type of Scala, and no call that waits.
class ClientSignaturesTest {
    private static List<Class<?>> publicTypes(Class<?> ofPackage) throws Exception {
        String name = ofPackage.getPackageName();
        Path folder = Path.of(ofPackage.getProtectionDomain().getCodeSource().getLocation().toURI())
                .resolve(name.replace('.', '/'));
        List<Class<?>> all = new ArrayList<>();
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : files.filter(f -> f.toString().endsWith(".class")).toList()) {
                Class<?> type = Class.forName(name + "." + file.getFileName().toString()
                        .replace(".class", ""));
                if (Modifier.isPublic(type.getModifiers())) all.add(type);
            }
        }
        return all;
    }

    private static Stream<String> signatures(Class<?> type) {
        return Stream.of(Stream.of(type.toGenericString()),
                Arrays.stream(type.getDeclaredMethods()).filter(m -> Modifier.isPublic(m.getModifiers())
                        && !m.isSynthetic()).map(Method::toGenericString),
                Arrays.stream(type.getConstructors()).map(c -> c.toGenericString()),
                Arrays.stream(type.getFields()).map(f -> f.toGenericString())).flatMap(s -> s);
    }

    @Test void noSignatureHasATypeOfScala() throws Exception {
        List<String> all = new ArrayList<>();
        for (Class<?> root : List.of(BiosClient.class, Request.class))
            for (Class<?> type : publicTypes(root)) signatures(type).forEach(all::add);
        assertTrue(all.size() > 300, () -> "" + all.size());
        assertEquals(List.of(), all.stream().filter(signature -> signature.contains("scala.")).toList());
    }

    @Test void everyRequestReturnsAStage() {
        for (Class<?> type : List.of(BiosClient.class, TrainingRun.class, Sampler.class))
            for (Method method : type.getDeclaredMethods()) {
                Class<?> returned = method.getReturnType();
                if (!Modifier.isPublic(method.getModifiers()) || returned == CompletionStage.class) continue;
                // What needs no answer of the gateway.
                assertTrue(List.of("connect", "session", "run", "close", "id", "nextSeq", "onHistory",
                        "onMetrics").contains(method.getName()), method::toString);
            }
    }
}
