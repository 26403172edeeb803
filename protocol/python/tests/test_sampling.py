import asyncio
import unittest

from case import MODEL, GatewayCase, datum
import bios
from bios import types


class SamplingTest(GatewayCase):
    def bodies(self):
        return [body for _, path, body in self.state.calls if path == "/asample"]

    def snapshots(self, client):
        return [b for _, kind, b in self.run_of(client).operations if kind == "save_weights_for_sampler"]

    def test_a_prompt_gets_its_sequences(self):
        sampler = self.service().create_sampling_client(base_model="tiny")
        found = sampler.sample(types.ModelInput.from_ints([1, 2, 3]), types.SamplingParams(max_tokens=5, temperature=0.7),
                               num_samples=2).result()
        self.assertEqual([len(s.tokens) for s in found.sequences], [5, 5])
        self.assertEqual(found.sequences[0].stop_reason, "length")
        self.assertEqual(len(found.sequences[0].logprobs), 5)
        self.assertIsNone(found.prompt_logprobs)
        tinkers = sampler.sample([1, 2, 3], 2, types.SamplingParams(max_tokens=5)).result()
        self.assertEqual(len(tinkers.sequences), 2)
        by_name = sampler.sample(prompt=[1], sampling_params=types.SamplingParams(max_tokens=1), num_samples=3)
        self.assertEqual(len(by_name.result().sequences), 3)

    def test_the_prompts_own_log_probabilities(self):
        sampler = self.service().create_sampling_client(base_model="tiny")
        self.assertEqual(sampler.compute_logprobs([5, 6, 7]).result(), [None, -1.0, -1.0])
        found = sampler.sample([5, 6], include_prompt_logprobs=True, topk_prompt_logprobs=1).result()
        self.assertEqual(found.topk_prompt_logprobs, [None, [(1, -0.1)]])
        self.assertIsNone(found.sequences[0].topk_logprobs)
        found = sampler.sample([5, 6], bios.types.SamplingParams(max_tokens=2), topk_sample_logprobs=2).result()
        tokens = found.sequences[0].tokens
        self.assertEqual(found.sequences[0].topk_logprobs, [[(t, -0.5), (1, -2.0)] for t in tokens])
        same = asyncio.run(sampler.sample_async([5, 6], topk_sample_logprobs=1))
        self.assertEqual(len(same.sequences[0].topk_logprobs[0]), 1)
        with self.assertRaisesRegex(bios.InvalidArgumentError, "topk_sample_logprobs"):
            sampler.sample([5], topk_sample_logprobs=-1)
        self.assertEqual(asyncio.run(sampler.compute_logprobs_async([5, 6])), [None, -1.0])
        self.assertEqual(sampler.get_base_model(), "tiny")
        self.assertEqual(sampler.get_tokenizer().encode("a"), [97])

    def test_a_lost_request_is_sent_again_with_its_seed(self):
        sampler = self.service().create_sampling_client(base_model="tiny")
        future = sampler.sample([1, 2], types.SamplingParams(max_tokens=4))
        expected = self.state.futures[future.request_id]["sequences"][0]["tokens"]
        self.state.lost.add(future.request_id)
        self.assertEqual(future.result().sequences[0].tokens, expected)
        first, second = self.bodies()
        self.assertEqual(first["sampling_params"], second["sampling_params"])
        self.assertNotEqual(first["seq_id"], second["seq_id"])

    def test_unseeded_requests_differ_and_seeded_ones_repeat(self):
        sampler = self.service().create_sampling_client(base_model="tiny")
        for _ in range(2):
            sampler.sample([1])
            sampler.sample([1], types.SamplingParams(seed=2 ** 64 - 1))
        seeds = [b["sampling_params"]["seed"] for b in self.bodies()]
        self.assertEqual(seeds[1], seeds[3])
        self.assertNotEqual(seeds[0], seeds[2])

    def test_a_repeated_post_is_one_request(self):
        sampler = self.service().create_sampling_client(base_model="tiny")
        self.state.fault("^/asample$", "lose", 2)
        self.state.fault("^/asample$", (429, {}), 2)
        sampler.sample([1], types.SamplingParams(max_tokens=2)).result()
        self.assertEqual(len([f for f in self.state.futures if ":sample:" in f]), 1)

    def test_many_at_once(self):
        sampler = self.service().create_sampling_client(base_model="tiny")
        self.state.polls_before_result = 2

        async def main():
            return await asyncio.gather(*[sampler.sample_async([1], types.SamplingParams(max_tokens=1, seed=i))
                                          for i in range(300)])

        self.assertEqual([r.sequences[0].tokens[0] for r in asyncio.run(main())],
                         [i % 96 + 32 for i in range(300)])
        self.assertEqual(sorted(b["seq_id"] for b in self.bodies()), list(range(1, 301)))
        self.assertLess(len(self.server.connections), 200)

    def test_a_run_is_sampled_from_one_snapshot_until_its_weights_change(self):
        client = self.training()
        params = types.SamplingParams(max_tokens=2, seed=0)
        tokens = [client.sample([1], params).result().sequences[0].tokens for _ in range(3)]
        self.assertEqual(len(self.snapshots(client)), 1)
        client.forward_backward([datum()], "cross_entropy")
        client.sample([1], params).result()
        self.assertEqual(len(self.snapshots(client)), 1)
        client.optim_step()
        late = client.sample([1], params)
        client.train([datum()])
        self.assertEqual(late.result().sequences[0].tokens[0], tokens[0][0] + 1)
        self.assertEqual(asyncio.run(client.sample_async([1], params)).sequences[0].tokens[0], tokens[0][0] + 2)
        self.assertEqual(len(self.snapshots(client)), 3)

    def test_a_sampling_client_keeps_its_weights(self):
        client = self.training()
        params = types.SamplingParams(max_tokens=1, seed=0)
        named = client.save_weights_and_get_sampling_client(name="now")
        unnamed = client.save_weights_and_get_sampling_client()
        client.train([datum()])
        newer = asyncio.run(client.save_weights_and_get_sampling_client_async("now"))
        newest = asyncio.run(client.save_weights_and_get_sampling_client_async())
        self.assertEqual([s.sample([1], params).result().sequences[0].tokens[0]
                          for s in (named, unnamed, newer, newest)], [32, 32, 33, 33])

    def test_clients_of_one_snapshot_never_share_a_number(self):
        client = self.training()
        first, second = (client.save_weights_and_get_sampling_client() for _ in range(2))
        self.assertEqual(first.sampler_id, second.sampler_id)
        for sampler in (first, second, client):
            sampler.sample([1], types.SamplingParams(max_tokens=1)).result()
        self.assertEqual([b["seq_id"] for b in self.bodies()], [1, 2, 3])

    def test_sampling_after_a_failure_fails_with_its_cause(self):
        client = self.training()
        client.optim_step()
        with self.assertRaisesRegex(bios.RequestFailedError, "no gradient"):
            client.sample([1]).result()

    def test_a_sampling_client_is_made_of_one_thing(self):
        service = self.service()
        for wrong in ({}, {"model_path": "bios://a/b", "base_model": "tiny"}, {"model_path": "a/b"}):
            with self.assertRaises(ValueError):
                service.create_sampling_client(**wrong)
        with self.assertRaises(bios.NotFoundError):
            service.create_sampling_client(model_path="bios://run-000000000000/sampler_weights/x")
        path = self.training().save_weights_for_sampler(name="x").result().path
        self.assertIn(MODEL.split("/")[1], path)
        self.assertEqual(asyncio.run(service.create_sampling_client_async(path)).model_path, path)


if __name__ == "__main__":
    unittest.main()
