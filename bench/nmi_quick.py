"""Two trees in turns."""
import asyncio, sys, os
from pathlib import Path
from bench.stage.agent import nginx
from bench.stage.ground import enter
from bench.stage.load import PODS, load
from bench.stage.scene import say, scene
async def measure():
    async with scene() as stage:
        await stage.bind(20); await stage.add_pods(range(110))
        asking=stage.pods[:PODS]
        for r in range(int(os.environ.get("R","3"))):
            with nginx(stage.folder, stage.cgroups) as server:
                say("nginx "+str(load(server, stage.cgroups, asking, connections=64, seconds=3)))
            for name,src in (("main",Path("/work/main")),("me",None)):
                from bench.stage import agent as A
                A.ROOT=Path("/work/main") if name=="main" else Path("/work/wt/me")
                async with stage.agent("--on-exit=remove") as agent:
                    load(agent,stage.cgroups,asking,connections=64,seconds=1)
                    got=load(agent,stage.cgroups,asking,connections=64,seconds=4)
                    say(f"{name}: {got} "+" ".join(f"p{q}={got.percentile(q):.2f}" for q in (90,95,98,99.9)))
                    await stage.written()
if __name__=="__main__":
    enter("bench.nmi_quick"); asyncio.run(measure())
