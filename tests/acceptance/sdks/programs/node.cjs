// Runs in a pod: calls of Azure's SDK for Node, and what came of each, as a list in JSON.
//
// Its argument is a list in JSON of: credential (a class of @azure/identity), with (its argument),
// call (a function below), ask (its arguments). A chain's argument is a list, of managed identities.
const identity = require("@azure/identity");
const { SecretClient } = require("@azure/keyvault-secrets");
const { BlobServiceClient } = require("@azure/storage-blob");

const calls = {
  async whose(credential, { scope }) {
    const { token } = await credential.getToken(scope);
    return JSON.parse(Buffer.from(token.split(".")[1], "base64url")).appid;
  },
  async secret(credential, { vault, name }) {
    return (await new SecretClient(vault, credential).getSecret(name)).value;
  },
  async blob(credential, { account, container, name, text }) {
    const held = new BlobServiceClient(account, credential).getContainerClient(container);
    const blob = held.getBlockBlobClient(name);
    await blob.upload(text, Buffer.byteLength(text));
    return (await blob.downloadToBuffer()).toString();
  },
};

function credentialOf(task) {
  const made = identity[task.credential];
  if (!Array.isArray(task.with)) return new made(task.with);
  return new made(...task.with.map((each) => new identity.ManagedIdentityCredential(each)));
}

async function outcomeOf(task) {
  const began = performance.now();
  let outcome;
  try {
    outcome = { value: await calls[task.call](credentialOf(task), task.ask) };
  } catch (error) {
    outcome = { error: error.name, message: error.message };
  }
  return { ...outcome, seconds: (performance.now() - began) / 1000 };
}

async function main() {
  const outcomes = [];
  for (const task of JSON.parse(process.argv[2])) outcomes.push(await outcomeOf(task));
  console.log(JSON.stringify(outcomes));
}

main();
