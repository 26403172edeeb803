package bios.bench;

import bios.command.Installation;
import bios.protocol.model.ModelName;
import bios.protocol.run.AdamParams;
import bios.worker.adapter.TrainingState;
import bios.worker.device.Device;
import bios.worker.model.BaseModel;
import bios.worker.train.Trainer;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/// Measures the time of a small training step from a Python program through a real server: the overhead of
/// Bios beyond the engine's own time.
///
/// @param python Python that runs the client
/// @param pairs number of measured pairs of `forward_backward` and `optim_step`
/// @param warmUp number of pairs before them
/// @param limit time limit of the client's run
public record GatewayBench(String python, int pairs, int warmUp, TimeLimit limit) {
    private static final String MODEL = "bios/tiny";
    private static final int TOKENS = 8;
    private static final int RANK = 16;

    /// Starts a server on the small model that comes with Bios, and measures.
    public Report run() throws IOException {
        Path data = Files.createTempDirectory("bios-bench-");
        ObjectNode client;
        try (Child server = Child.bios(List.of("up", "--port", "0", "--data", data.toString(), "--model",
                MODEL + "=" + Installation.tinyModel()))) {
            client = client(server.await("bios ready on "));
        } finally {
            Setup.delete(data);
        }
        try (Device device = Setup.defaultDevice()) {
            Report report = new Report("gateway", device.description());
            report.line().put("model", MODEL).put("rank", RANK).setAll(client);
            report.line().remove("server");
            report.line().set("breakdown", Breakdown.of(client, engineMillis(device)).json());
            return report;
        }
    }

    private ObjectNode client(String url) {
        List<String> command = new ArrayList<>(List.of(python,
                Installation.root().resolve("deploy/bench/small_steps.py").toString(), "--url", url,
                "--model", MODEL, "--rank", "" + RANK, "--tokens", "" + TOKENS, "--pairs", "" + pairs,
                "--warm-up", "" + warmUp));
        return Peer.lastLine(Child.of(command).output("small steps", limit), command);
    }

    /// Milliseconds of the engine alone for such a pair, in this process.
    private double engineMillis(Device device) {
        Workload workload = Workload.of(RANK, Lengths.equal(1, TOKENS));
        List<Double> seconds = new ArrayList<>();
        try (BaseModel model = BaseModel.load(Installation.tinyModel(), new ModelName(MODEL), device);
                TrainingState state = TrainingState.createInitialized(Setup.adapter(RANK, 1), model.spec(),
                        device)) {
            Trainer trainer = new Trainer(model);
            var operation = workload.operation(0, model.spec().vocabularySize(), 1);
            for (int i = 0; i < warmUp + pairs; i++) {
                long begin = System.nanoTime();
                trainer.evaluate(state, operation);
                trainer.optimStep(state, Optional.of(AdamParams.DEFAULT)).complete();
                if (i >= warmUp) seconds.add((System.nanoTime() - begin) * 1e-9);
            }
        }
        return Percentiles.of(seconds).median() * 1e3;
    }
}
