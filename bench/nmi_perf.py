"""perf of the worker."""
import asyncio, sys, subprocess
from bench.stage.ground import enter
from bench.stage.load import PODS, load
from bench.stage.scene import say, scene
async def measure():
    async with scene() as stage:
        await stage.bind(20); await stage.add_pods(range(110))
        asking=stage.pods[:PODS]
        async with stage.agent("--on-exit=remove") as agent:
            load(agent,stage.cgroups,asking,connections=64,seconds=1)
            p=subprocess.Popen(["perf","record","-F","3000","-g","-o","/tmp/perf-w.data","-p",str(agent.worker()),"--","sleep","3"],stderr=subprocess.DEVNULL)
            say(str(load(agent,stage.cgroups,asking,connections=64,seconds=5)))
            p.wait()
if __name__=="__main__":
    enter("bench.nmi_perf"); asyncio.run(measure())
