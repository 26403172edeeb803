import copy
import dataclasses
import math
import os
import pickle
import unittest
from unittest import mock

from case import MODEL, GatewayCase, bios, datum
from bios.rlhf import DPOTrainer, Judge, Pair, PPOConfig, PPOTrainer, RewardModel, Rollout, win_fractions
from bios.rlhf.ppo import generalized_advantages, fallback_reward

CONFIG = {"group_size": 3, "max_tokens": 4, "seed": 7}


def rollout(group, tokens, logprobs=None, stop="stop"):
    return Rollout(bios.ModelInput.from_ints([1, 2]), list(tokens), list(logprobs or [-0.5] * len(tokens)), group, stop)


class PPOTest(GatewayCase):
    def trainer(self, config=CONFIG, **kwargs):
        return PPOTrainer.from_training_client(self.training(), config, **kwargs)

    def sent(self, path):
        return [body for _, at, body in self.state.calls if at.endswith(path)]

    def test_an_iteration_samples_scores_and_trains_and_leaves_no_checkpoint(self):
        trainer = self.trainer(reward_fn=lambda r: float(sum(r.tokens)))
        rollouts = trainer.collect_rollouts(["ab", [3, 4, 5], bios.ModelInput.from_ints([6])])
        self.assertEqual([r.group for r in rollouts], [0, 0, 0, 1, 1, 1, 2, 2, 2])
        rewards = trainer.compute_rewards(rollouts)
        self.assertEqual(rewards, [float(sum(r.tokens)) for r in rollouts])
        metrics = trainer.ppo_update(rollouts, rewards)
        self.assertEqual(metrics["mean_reward"], sum(rewards) / 9)
        self.assertEqual(metrics["step"], 1)
        self.assertFalse(self.state.checkpoints)
        (body,) = self.sent("/forward_backward")
        self.assertEqual(body["forward_backward_input"]["loss_fn"], "ppo")
        self.assertEqual(body["forward_backward_input"]["loss_fn_config"],
                         {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2})

    def test_the_advantage_is_the_reward_less_the_mean_of_its_group_on_completion_tokens_only(self):
        trainer = self.trainer({**CONFIG, "num_substeps": 1})
        rollouts = [rollout(0, [5, 6]), rollout(0, [7, 8, 9]), rollout(1, [5]), rollout(1, [6])]
        seen = []
        real = trainer.client.forward_backward
        with mock.patch.object(trainer.client, "forward_backward", lambda data, *rest: (seen.extend(data), real(data, *rest))[1]):
            metrics = trainer.ppo_update(rollouts, [1.0, 3.0, 2.0, 2.0])
        self.assertEqual(metrics["constant_groups"], 0.5)
        self.assertEqual(metrics["trained"], 0.5)
        found = {tuple(d.loss_fn_inputs["target_tokens"].to_list()): d.loss_fn_inputs for d in seen}
        self.assertEqual(set(found), {(2, 5, 6), (2, 7, 8, 9)}, "a group of equal rewards teaches nothing")
        self.assertEqual(found[2, 5, 6]["advantages"].to_list(), [0, -1, -1])
        self.assertEqual(found[2, 7, 8, 9]["advantages"].to_list(), [0, 1, 1, 1])
        self.assertEqual(found[2, 5, 6]["logprobs"].to_list(), [0, -0.5, -0.5])

    def test_substeps_go_through_all_rollouts_once_for_each_epoch(self):
        trainer = self.trainer({**CONFIG, "num_substeps": 2, "num_epochs": 3})
        rollouts = [rollout(0, [5 + i]) for i in range(5)]
        trainer.ppo_update(rollouts, [float(i) for i in range(5)])
        sizes = [len(body["forward_backward_input"]["data"]) for body in self.sent("/forward_backward")]
        self.assertEqual(sizes, [2, 2] * 3, "of five rollouts the one whose reward is the mean is left out")
        self.assertEqual(self.run_of(trainer.client).step, 6)

    def test_rollouts_are_copied_and_pickled(self):
        first = self.trainer().collect_rollouts(["ab"])[0]
        self.assertIs(copy.deepcopy(first).tokenizer, first.tokenizer)
        self.assertEqual(dataclasses.asdict(first)["tokens"], first.tokens)
        again = pickle.loads(pickle.dumps([first, first]))
        self.clients.append(again[0].tokenizer._session)
        self.assertEqual((again[0], again[0].text), (first, first.text))
        self.assertIs(pickle.loads(pickle.dumps(first)).tokenizer, again[0].tokenizer, "one in a process")

    def test_equal_rewards_make_no_step(self):
        trainer = self.trainer()
        metrics = trainer.ppo_update([rollout(0, [5]), rollout(0, [6])], [1, 1])
        self.assertEqual((metrics["trained"], metrics["constant_groups"]), (0, 1))
        self.assertEqual((metrics["step"], metrics["grad_norm"], metrics["loss"]), (0, 0, 0))
        self.assertFalse(self.sent("/optim_step"))
        trainer.client.train([datum()])
        again = trainer.ppo_update([rollout(0, [5]), rollout(0, [6])], [1, 1])
        self.assertEqual(again["step"], 1)
        self.assertEqual(set(again), set(trainer.ppo_update([rollout(0, [5]), rollout(0, [6])], [1, 2])))

    def test_generalized_advantages(self):
        self.assertEqual(generalized_advantages([0, 0, 1], [0, 0, 0], 1.0, 1.0), [1, 1, 1])
        self.assertEqual(generalized_advantages([0, 0, 1], [0.25, 0.5, 0.5], 1.0, 0.0), [0.25, 0.0, 0.5])
        found = generalized_advantages([0, 1], [0.5, 0.5], 0.9, 0.8)
        self.assertAlmostEqual(found[1], 0.5)
        self.assertAlmostEqual(found[0], 0.9 * 0.5 - 0.5 + 0.9 * 0.8 * 0.5)
        trainer = self.trainer({**CONFIG, "advantages": "gae", "lam": 1.0}, value_fn=lambda r: [0.25] * len(r.tokens))
        self.assertEqual(trainer._advantages([rollout(0, [5, 6])], [1.0], [[0.0, 0.0]]), [[0.75, 0.75]])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "value_fn"):
            self.trainer({**CONFIG, "advantages": "gae"}, value_fn=lambda r: [0.0]).ppo_update([rollout(0, [5, 6])], [1.0])

    def test_the_reference_holds_on(self):
        trainer = self.trainer({**CONFIG, "kl_coef": 0.5})
        metrics = trainer.ppo_update([rollout(0, [5, 6], [-0.5, -0.25]), rollout(0, [7, 8], [-1.0, -1.0])], [1.0, 1.0])
        self.assertAlmostEqual(metrics["kl_reference"], (0.5 + 0.75) / 4)
        self.assertEqual(metrics["trained"], 1.0, "the penalty is a reward too")
        (saved,) = self.sent("/save_weights_for_sampler")
        self.assertEqual(saved["ttl_seconds"], 30 * 24 * 3600, "it has a name, under which it lives while training goes on")
        self.assertEqual(list(self.state.checkpoints), [(trainer.client.model_id, "sampler", saved["path"])])
        given = self.trainer({**CONFIG, "kl_coef": 0.5}, reference=trainer._reference)
        self.assertIs(given._reference, trainer._reference)
        self.assertEqual(len(self.state.checkpoints), 1)

    def test_rewards_come_from_the_first_source_that_there_is(self):
        trainer = self.trainer()
        found = [rollout(0, [5, 5]), rollout(0, [5, 6], stop="length")]
        with self.assertLogs("bios", "WARNING") as logs, mock.patch.dict(os.environ, {"BIOS_REWARD_MODEL": ""}):
            self.assertEqual(trainer.compute_rewards(found), [0.0, 0.0])
            trainer.compute_rewards(found)
        self.assertEqual(len(logs.output), 1, "one warning")
        self.assertEqual(trainer.compute_rewards(found, lambda r: r.tokens[1]), [5.0, 6.0])
        prefers = self.trainer(preference=lambda a, b: a.tokens[1] > b.tokens[1])
        self.assertEqual(prefers.compute_rewards(found), [0.0, 1.0])
        with mock.patch.dict(os.environ, {"BIOS_REWARD_MODEL": "tiny"}):
            asked = self.trainer()
            self.assertEqual(asked.compute_rewards(asked.collect_rollouts(["ab"])), [0.5] * 3)
        with self.assertRaisesRegex(bios.InvalidArgumentError, r"reward of rollouts\[0\]"):
            trainer.compute_rewards(found, lambda r: math.nan)

    def test_win_fractions(self):
        found = [rollout(0, [1]), rollout(0, [2]), rollout(0, [3]), rollout(1, [9])]
        self.assertEqual(win_fractions(found, lambda a, b: a.tokens > b.tokens), [0.0, 0.5, 1.0, 0.5])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "preference"):
            win_fractions(found, lambda a, b: 2)

    def test_a_session_makes_its_run(self):
        made = PPOTrainer(model=MODEL, service=self.service()).create_session(
            {"batch_size": 2, "group_size": 2, "learning_rate": 2e-5, "lora_rank": 4, "max_tokens": 2},
            reward_fn=lambda r: r.tokens[0])
        self.assertEqual(self.run_of(made.client).lora["rank"], 4)
        told = list(made.train(["a", "b", "c"], 2))
        self.assertEqual([m["step"] for m in told], [1, 2])
        with self.assertRaisesRegex(bios.BiosError, "create_session"):
            PPOTrainer(model=MODEL, service=self.service()).client
        with self.assertRaisesRegex(bios.InvalidArgumentError, "model"):
            PPOTrainer(service=self.service()).create_session()

    def test_wrong_arguments_are_named(self):
        for settings, name in (({"group_size": 0}, "group_size"), ({"clip": 2}, "clip"), ({"loss_fn": "x"}, "loss_fn"),
                               ({"kl_coef": math.inf}, "kl_coef"), ({"groups": 1}, "config.groups"),
                               ({"advantages": "x"}, "advantages"), ({"learning_rate": -1}, "learning_rate")):
            with self.assertRaisesRegex(bios.InvalidArgumentError, name):
                self.trainer(settings)
        trainer = self.trainer()
        for prompts in ([], "text", [[]]):
            with self.assertRaisesRegex(bios.InvalidArgumentError, "prompts"):
                trainer.collect_rollouts(prompts)
        with self.assertRaisesRegex(bios.InvalidArgumentError, "rewards"):
            trainer.ppo_update([rollout(0, [5])], [])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "client"):
            PPOTrainer.from_training_client("run")
        self.assertEqual(fallback_reward(rollout(0, [5, 5, 6])), 0.5)
        self.assertEqual(PPOConfig().group_size, 4)


class PreferenceTest(GatewayCase):
    PAIRS = [Pair("ab", "cc", "dd"), Pair([1, 2], [3], [4, 5])]

    def test_dpo_weighs_the_two_completions_against_each_other(self):
        trainer = DPOTrainer.from_training_client(self.training(), {"beta": 0.5})
        metrics = trainer.update(self.PAIRS)
        self.assertEqual(metrics["step"], 1)
        body = [body for _, at, body in self.state.calls if at.endswith("/forward_backward")][-1]
        weights = [bios.TensorData.from_wire(d["loss_fn_inputs"]["weights"]).to_list()
                   for d in body["forward_backward_input"]["data"]]
        self.assertEqual(weights[0][0], 0, "the prompt is not trained on")
        self.assertAlmostEqual(weights[0][-1], -weights[1][-1])
        self.assertGreater(weights[0][-1], 0)
        self.assertLessEqual(metrics["loss"], 2 * math.log(2))

    def test_a_reward_model_scores_and_learns(self):
        model = RewardModel.from_training_client(self.training())
        metrics = model.update(self.PAIRS)
        self.assertEqual(metrics["step"], 1)
        scored = model.score([rollout(0, [5]), rollout(0, [6])])
        self.assertEqual(len(scored), 2)
        self.assertEqual(model(rollout(0, [5])), scored[0])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "same token"):
            RewardModel.from_training_client(self.training(), {"good": "Yes", "bad": "Y"})
        with self.assertRaisesRegex(bios.InvalidArgumentError, "pairs"):
            model.update([])
        with self.assertRaisesRegex(bios.InvalidArgumentError, r"pairs\[0\].chosen"):
            model.update([Pair("a", "", "b")])

    def test_a_judge_is_asked_both_ways_round(self):
        judge = Judge(self.service().create_sampling_client(base_model=MODEL))
        first = Rollout(bios.ModelInput.from_ints([65]), [66], [-1.0], 0, "stop", judge._tokenizer)
        self.assertEqual(judge.compare([(first, first)]), [0.5])
        with self.assertRaisesRegex(bios.InvalidArgumentError, "template"):
            Judge(self.service().create_sampling_client(base_model=MODEL), "no places")


if __name__ == "__main__":
    unittest.main()
