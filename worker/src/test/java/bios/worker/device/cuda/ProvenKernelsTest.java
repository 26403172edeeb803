package bios.worker.device.cuda;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import bios.worker.device.CudaEmulator;
import bios.worker.device.CudaSettings;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/// Kernels that a device can do without are tried in a process of their own, on the emulated card.
final class ProvenKernelsTest {
    private static final String ALL = "uses FEW_ROWS LOW_RANK_BESIDE SHARED_ROWS PREFETCH";
    @TempDir Path cache;

    private String open(String fault) {
        var ended = CudaEmulator.java(Program.class, List.of(), List.of(cache.toString()),
                Map.of("CUDA_EMULATOR_CC", "90", "CUDA_EMULATOR_CHECK", "0", "CUDA_EMULATOR_FAULT", fault),
                600);
        assertEquals(0, ended.status(), ended.output());
        return ended.output();
    }

    private Path kept() throws IOException {
        try (var files = Files.list(cache)) {
            return files.filter(file -> file.toString().endsWith(".txt")).findFirst().orElseThrow();
        }
    }

    /// What is kept is believed at the next start.
    @Test void soundKernelsAreTriedOnceAndUsed() throws IOException {
        String first = open("");
        assertTrue(first.contains(ALL), first);
        assertEquals("FEW_ROWS sound\nLOW_RANK_BESIDE sound\nSHARED_ROWS sound\nPREFETCH sound\n",
                Files.readString(kept()));
        Files.writeString(kept(), Files.readString(kept()).replace("PREFETCH sound", "PREFETCH faulty"));
        String again = open("");
        assertTrue(again.contains(ALL.replace(" PREFETCH", "")), again);
        assertTrue(again.contains("bios.engine.cuda.prefetch is off: its kernels failed"), again);
    }

    /// The process loses the card at the first launch of a cluster; another one tries what comes after it.
    @Test void kernelsThatEndTheProcessAreNotUsed() throws IOException {
        String output = open("clusters");
        assertTrue(output.contains("uses FEW_ROWS LOW_RANK_BESIDE PREFETCH"), output);
        assertTrue(output.contains("bios.engine.cuda.shared-rows is off"), output);
        assertEquals("FEW_ROWS sound\nLOW_RANK_BESIDE sound\nSHARED_ROWS faulty\nPREFETCH sound\n",
                Files.readString(kept()));
    }

    /// Without a card for the process nothing is known, and nothing is kept for the next start.
    @Test void aProcessThatDoesNotStartProvesNothing() throws IOException {
        String output = open("memory@1,memory@2,memory@3,launch@1");
        assertTrue(output.contains("could not be tried"), output);
        assertTrue(output.contains("uses\n"), output);
        assertEquals("", Files.readString(kept()));
    }

    /// Prints the kernels that are used.
    static final class Program {
        public static void main(String[] arguments) {
            var card = CudaBackend.choose(CudaDriver.cards(), "cuda");
            var settings = CudaSettings.DEFAULT.withKernelTrial(true);
            var products = new ProvenKernels(card, settings, new KernelCompiler(new Nvrtc(List.of()), card,
                    Path.of(arguments[0]))).products();
            var used = new StringBuilder("uses");
            for (var kernels : OptionalKernels.values())
                if (kernels.wanted(products)) used.append(' ').append(kernels);
            System.out.println(used);
        }
    }
}
