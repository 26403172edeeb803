package bios;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

/// Each rule finds a planted violation and leaves alone what only looks like one.
final class TidyRulesTest {
    @Test void anImportAgainstTheDirectionOfModulesIsFound() {
        assertEquals(1, TidyRules.imports("worker", "import bios.coordinator.run.Run;\n").size());
        assertEquals(1, TidyRules.imports("protocol", "import static bios.persistence.X.y;\n").size());
        assertEquals(List.of(), TidyRules.imports("worker", "import bios.protocol.Fault;\n"));
        assertEquals(List.of(), TidyRules.imports("deploy", "import bios.worker.engine.Engine;\n"));
    }

    @Test void theWallClockAndUnseededRandomnessAreFound() {
        for (String code : List.of("long t = System.currentTimeMillis();", "f(System::nanoTime);",
                "var now = Instant.now();", "new Random()", "UUID.randomUUID()", "new SecureRandom()",
                "Math.random()", "Clock.systemUTC()")) {
            assertEquals(1, TidyRules.clockOrRandom(code).size(), code);
            assertEquals(List.of(), TidyRules.clockOrRandom(code + " // edge: a reason"), code);
            assertEquals(List.of(), TidyRules.clockOrRandom("// " + code), code);
        }
        assertEquals(List.of(), TidyRules.clockOrRandom("new Random(seed); new SecureRandom(bytes);"));
    }

    @Test void aBlockedThreadIsFound() {
        for (String code : List.of("Thread.sleep(10);", "stage.toCompletableFuture().join();",
                "stage.toCompletableFuture().get();", "x.toCompletableFuture().get(1, TimeUnit.SECONDS);",
                "all.map(CompletableFuture::join)", "thread.join();", "LockSupport.park();",
                "Await.result(future, limit);", "latch.await();", "process.waitFor();",
                "CompletableFuture<String> done = f(); done.get();", "Future<?> task = g(); task.get();",
                "BlockingQueue<Runnable> calls = h(); calls.take().run();",
                "CompletableFuture<A> call(B b) { } A a = call(f(x)).get();", "while (empty()) wait();",
                "LinkedBlockingQueue<A> q = h(); q.put(a);", "Semaphore permits = s(); permits.acquire();")) {
            assertEquals(1, TidyRules.blocking(code).size(), code);
            assertEquals(List.of(), TidyRules.blocking(code + " // edge: a thread of its own"), code);
        }
        for (String code : List.of("Optional<A> a = f(); a.get();", "String.join(\", \", names);",
                "Supplier<CompletionStage<A>> work = f(); work.get();", "pages.take();",
                "Function<B, CompletionStage<A>> call) { call.get(); }", "map.put(a, b);",
                "await(done);", "Future<A> f(B b) { } optional().get();",
                "/// latch.await()"))
            assertEquals(List.of(), TidyRules.blocking(code), code);
    }

    @Test void whatIsLeftForLaterIsFound() {
        assertEquals(1, TidyRules.leftForLater("// TO" + "DO: later").size());
        assertEquals(1, TidyRules.leftForLater("@Dis" + "abled").size());
        assertEquals(1, TidyRules.leftForLater("# FIX" + "ME").size());
        assertEquals(List.of(), TidyRules.leftForLater("nothing, @Dis" + "abledIfSystemProperty(named = a)"));
    }

    @Test void aCudaKernelThatNoClassLaunchesIsFound() {
        String text = "extern \"C\" __global__ void fill(Matrix to) {}\n"
                + "extern \"C\" __global__ void __launch_bounds__(256)\nrms_norm(Matrix y) {}\n"
                + "extern \"C\" __global__ __launch_bounds__(128) void rope(Matrix x) {}\n";
        assertEquals(List.of("rms_norm", "rope"), TidyRules.kernels(text, "kernel(\"fill\")"));
        assertEquals(List.of(), TidyRules.kernels(text, "\"fill\" \"rms_norm\" \"rope\""));
        String sized = "extern \"C\" __global__ void attend_64(Matrix to) {}";
        assertEquals(List.of(), TidyRules.kernels(sized, "kernel(\"attend_\" + headDim)"));
        assertEquals(List.of("attend_64"), TidyRules.kernels(sized, "kernel(\"attend_back_\" + headDim)"));
        assertEquals(List.of(), TidyRules.kernels(sized, "((wide ? \"attend\" : \"other\") + suffix(x))"));
        assertEquals(List.of("attend_64"), TidyRules.kernels(sized, "kernel(\"attend\"); x + suffix"));
    }

    @Test void everyWayToRaiseAnErrorCodeIsFound() {
        Map<String, String> constants = TidyRules.constants("static final String LOST = \"worker_lost\";");
        assertEquals(Set.of("not_found"), TidyRules.errorCodes("Fault.user(\"not_found\", m)", constants));
        assertEquals(Set.of("b"), TidyRules.errorCodes("Fault\n  .server(\n \"b\", m)", constants));
        assertEquals(Set.of("worker_lost"), TidyRules.errorCodes("Fault.server(Engine.LOST, m)", constants));
        assertEquals(Set.of("lora_mismatch"), TidyRules.errorCodes("""
                return refuse(position(a, "x, y"), "lora_mismatch", text);
                A refuse(long position, String code, String message) { return Fault.user(code, message); }
                """, constants));
        assertEquals(Set.of("name + 1"), TidyRules.errorCodes("Fault.user(name + 1, m)", constants));
    }

    @Test void metricsAndCodeWordsAreFound() {
        assertEquals(Set.of("bios_x_total"), TidyRules.metrics("Counter.builder().name(\"bios_x_total\")"));
        assertEquals(Set.of("bios.a-b", "c"), TidyRules.codeWords("| `bios.a-b` | `c` | `two words` |"));
    }

    @Test void linksAndAnchorsAreFound() {
        assertEquals(List.of("a.md", "b.md#c", "#d"),
                TidyRules.links("[x](a.md) [y](b.md#c) [z](#d) [w](https://example.org/)"));
        assertEquals(Set.of("the-glossary", "biosrun-training-runs"),
                TidyRules.anchors("# The glossary\n\n### `bios.run`: training runs\n"));
    }

    @Test void aRetiredNameIsFound() {
        var names = List.of(TidyRules.Retired.of("SamplingDesk -> SampleQueue"),
                TidyRules.Retired.of("Deed -> DeviceTask"), TidyRules.Retired.of("bios.a.Call -> ApiCall"));
        for (String text : List.of("final class SamplingDesk {}", "/// See [SamplingDesk].",
                "the SamplingDesk decides", "record Deed(int a) {}", "new Deed(1)", "a `Deed` is",
                "package bios.a;\nrecord Call() {}"))
            assertEquals(1, TidyRules.retired(names, text).size(), text);
        for (String text : List.of("final class SampleQueue {}", "Deeds", "in word and Deed",
                "package bios.b;\nrecord Call() {}", "package bios.a;\nrecord ApiCall() {}"))
            assertEquals(List.of(), TidyRules.retired(names, text), text);
    }

    @Test void aRetiredNameSaysWhatHasReplacedIt() {
        assertEquals(List.of("SampleDispatcher", "SampleQueue"), TidyRules.Retired.of(
                "SamplingDesk -> SampleDispatcher (coordinator), SampleQueue (worker)").replacements());
        assertEquals(List.of("RunBatch.LossInputs"), TidyRules.Retired.of(
                "bios.worker.model.Objective -> bios.worker.model.RunBatch.LossInputs").replacements());
    }

    @Test void declaredTypesAreFound() {
        assertEquals(Set.of("A", "B", "D"), TidyRules.types(
                "public interface A {\n    record B(int c) {}\n    private enum D { E }\n}\n"));
    }

    @Test void hopsAreReadAndLinksBetweenThemFound() {
        assertEquals(List.of(List.of("a.py"), List.of("B.java", "C.java")),
                TidyRules.hops("| hop | files |\n| 1 | `x/a.py` | D.java |\n"
                        + "| 2 | `y/B.java`, `C.java` | |\n"));
        Map<String, String> sources = Map.of("B.java", "new C(1)", "C.java", "", "D.java", "new BC()");
        assertTrue(TidyRules.linked("B.java", "C.java", sources));
        assertTrue(TidyRules.linked("C.java", "B.java", sources));
        assertFalse(TidyRules.linked("D.java", "C.java", sources));
        assertFalse(TidyRules.linked("E.java", "C.java", sources));
    }

    @Test void aReachIntoTheCpuBackendIsFound() {
        assertEquals(List.of("bios.worker.device.cpu.CpuDevice"),
                TidyRules.cpuBackend("import bios.worker.device.cpu.CpuDevice;"));
        assertEquals(List.of(), TidyRules.cpuBackend("import bios.worker.device.Device;"));
        assertTrue(TidyRules.usesHostMemory("MemorySegment segment"));
        assertFalse(TidyRules.usesHostMemory("Tensor tensor"));
    }
}
