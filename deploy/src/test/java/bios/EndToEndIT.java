package bios;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.MatchResult;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.parallel.Execution;
import org.junit.jupiter.api.parallel.ExecutionMode;

/// End-to-end checks: server processes, used through the Python package. Each check is a script in
/// `src/test/python` (or the demo, or the package's own tests) that exits 0 when all checks pass. Two run
/// at a time: each has servers, ports and folders of its own, and most wait for processes that start.
@Execution(ExecutionMode.CONCURRENT)
final class EndToEndIT {
    private static final Path ROOT = root();

    @Test void thePythonPackageKeepsItsPromises() throws Exception {
        python("-W", "error", "-m", "unittest", "discover", "-s", "protocol/python/tests");
    }

    @Test void aSavedOrKilledRunGivesTheBitsOfAnUndisturbedOne() throws Exception {
        python("deploy/src/test/python/resume_exactly.py");
    }

    @Test void killsAtRandomMomentsChangeNoBit() throws Exception {
        python("deploy/src/test/python/random_kills.py", "--seed", "3", "--kills", "4", "--steps", "20");
    }

    /// The long form: `python3 deploy/src/test/python/faults.py --seed N`.
    @Test void aClusterThatBreaksGivesTheBitsOfOneThatDoesNot() throws Exception {
        python("deploy/src/test/python/faults.py", "--seed", "2", "--faults", "3", "--runs", "2", "--steps",
                "14", "--kinds", "kill_worker,kill_cassandra,kill_coordinator");
    }

    @Test void runsNeverTouchEachOtherAndSnapshotsNeverChange() throws Exception {
        python("deploy/src/test/python/isolation.py");
    }

    @Test void moreRunsThanThereIsRoomForGiveTheBitsOfRunsThatStay() throws Exception {
        python("deploy/src/test/python/many_runs.py");
    }

    @Test void aServerShowsWhatHappensInIt() throws Exception {
        python("deploy/src/test/python/observed.py");
    }

    @Test void anAdapterThatWasMadeElsewhereComesInAsItIs() throws Exception {
        python("deploy/src/test/python/adapter_upload.py");
    }

    @Test void aServerStartsWithAnAheadOfTimeCacheAndWithoutOne() throws Exception {
        python("deploy/src/test/python/aot_cache.py");
    }

    @Test void badRequestsAreRefusedByFieldAndLoseNothing() throws Exception {
        python("deploy/src/test/python/bad_requests.py");
    }

    /// The long form: `hostile_bodies.py --bytes 268435456 --at-once 10 --heap ""`.
    @Test void bodiesThatAreMadeToFillMemoryHurtNobodyElse() throws Exception {
        python("deploy/src/test/python/hostile_bodies.py");
    }

    @Test void numbersThatAreNotFiniteNeverReachTheWeightsAndAreTold() throws Exception {
        python("deploy/src/test/python/not_finite.py");
    }

    @Test void whatIsStoredGoesBadAndItIsSaid() throws Exception {
        python("deploy/src/test/python/damage.py", "--parts", "blob");
    }

    @Test void aFullDiskLosesNothingAndServiceGoesOnByItself() throws Exception {
        python("deploy/src/test/python/damage.py", "--parts", "blobs_full,journal_full");
    }

    /// The long form: `python3 deploy/src/test/python/damage.py --parts places --places 200`.
    @Test void aDamagedJournalIsSaidAndIsPutBack() throws Exception {
        python("deploy/src/test/python/damage.py", "--parts", "places", "--places", "3");
    }

    /// The long form: `soak.py --steps 100000 --runs 3 --every 4 --measurements 32 --rest 25`.
    @Test void whatAServerUsesDoesNotGrowWithWhatItHasDone() throws Exception {
        python("deploy/src/test/python/soak.py", "--plant");
    }

    /// The long form: `many_clients.py --clients 200 --seconds 300 --cycles 2 --silence 420 --below 260`.
    @Test void memoryThatManyClientsNeededIsGivenBack() throws Exception {
        python("deploy/src/test/python/many_clients.py", "--clients", "60", "--seconds", "15",
                "--cycles", "2", "--idle", "10", "--silence", "240", "--below", "360");
    }

    /// The long form, with all parts of `gpu-check`: `python3 deploy/src/test/python/emulated_gpu.py`.
    @Test void anEmulatedCardIsCheckedAndALostOneLosesNothing() throws Exception {
        python("deploy/src/test/python/emulated_gpu.py", "--parts", "gpu_check,lost",
                "--checks", "bits,ceilings,train");
    }

    /// The long form: `emulated_gpu.py --parts cluster --runs 8`.
    @Test void inAClusterThatLosesACardEveryRunHasTheBitsOfOneInPeace() throws Exception {
        python("deploy/src/test/python/emulated_gpu.py", "--parts", "cluster", "--runs", "2");
    }

    /// The long form: `emulated_gpu.py --parts up --runs 8`.
    @Test void aServerOfSeveralCardsLosesOneAndThenAllOfItselfButNoBit() throws Exception {
        python("deploy/src/test/python/emulated_gpu.py", "--parts", "up", "--runs", "2");
    }

    /// The unmodified package: `python3 deploy/src/test/python/openai_sdk.py`.
    @Test void clientsOfOpenAiAreServedAndTokensStreamWhileTheyAreDrawn() throws Exception {
        python("deploy/src/test/python/openai_http.py");
    }

    @Test void everyListingOfTheUsersPageRuns() throws Exception {
        python("deploy/src/test/python/listings_run.py");
    }

    /// The long form: `python3 deploy/src/test/python/rlhf.py --iterations 40`.
    @Test void rewardsAndPreferencesAreLearned() throws Exception {
        python("deploy/src/test/python/rlhf.py");
    }

    @Test void theDemoRuns() throws Exception {
        python("deploy/demo/demo.py", "--steps", "24");
    }

    private static void python(String... arguments) throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(List.of(System.getProperty("bios.python", "python3")));
        command.addAll(List.of(arguments));
        Path log = Files.createTempFile("bios-check", ".log");
        ProcessBuilder builder = new ProcessBuilder(command).directory(ROOT.toFile())
                .redirectErrorStream(true).redirectOutput(log.toFile());
        builder.environment().put("BIOS_COMMAND", serverCommand());
        builder.environment().put("BIOS_ROOT", ROOT.toString());
        builder.environment().put("OMP_NUM_THREADS", "1");
        builder.environment().put("MALLOC_ARENA_MAX", "2");
        int status = builder.start().waitFor();
        String output = Files.readString(log);
        Files.delete(log);
        System.out.println(output);
        assertEquals(0, status, () -> String.join(" ", command) + "\n" + output);
    }

    private static String serverCommand() throws IOException {
        Path target = ROOT.resolve("deploy/target");
        return String.join(" ", Path.of(System.getProperty("java.home"), "bin/java").toString(),
                String.join(" ", launcherOptions()), "-Xmx1g",
                "-XX:AOTCache=" + target.resolve("bios.aot"), "-Xlog:aot*=off", "-Xlog:cds*=off",
                "-cp", target.resolve("bios.jar") + ":" + target.resolve("lib") + "/*", "bios.Main");
    }

    /// The options that `bios` gives to Java.
    private static List<String> launcherOptions() throws IOException {
        String launcher = Files.readString(ROOT.resolve("bios"));
        String command = launcher.substring(launcher.indexOf("exec \"$jdk/bin/java\""),
                launcher.indexOf("\"${ahead[@]}\""));
        List<String> options = Pattern.compile("(?<=\\s)-\\S+").matcher(command).results()
                .map(MatchResult::group).toList();
        assertTrue(options.contains("-XX:+ExitOnOutOfMemoryError"), options::toString);
        return options;
    }

    private static Path root() {
        Path folder = Path.of("").toAbsolutePath();
        while (!Files.exists(folder.resolve("mvnw"))) folder = folder.getParent();
        return folder;
    }
}
