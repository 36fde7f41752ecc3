// Puts what a device signs into a form, and sends the form; a code that was typed goes along with every way to sign in. The options are in the page, so that nothing is asked for.
"use strict";

const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (letter) => letter.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

function options(form) {
  const said = JSON.parse(form.dataset.options);
  said.challenge = bytes(said.challenge);
  if (said.user) said.user.id = bytes(said.user.id);
  for (const list of [said.excludeCredentials, said.allowCredentials]) {
    for (const one of list || []) one.id = bytes(one.id);
  }
  return { publicKey: said };
}

function shown(credential) {
  const response = {};
  for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = text(credential.response[name]);
  }
  return JSON.stringify({
    id: credential.id,
    rawId: text(credential.rawId),
    type: credential.type,
    authenticatorAttachment: credential.authenticatorAttachment,
    clientExtensionResults: credential.getClientExtensionResults(),
    response,
  });
}

function code(form) {
  const typed = document.querySelector("#password input[name=user_code]");
  if (typed && form.elements.user_code) form.elements.user_code.value = typed.value;
}

for (const form of document.querySelectorAll("form[data-passkey]")) {
  if (!window.PublicKeyCredential) continue;
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const problem = form.querySelector(".problem");
    try {
      const credential = await navigator.credentials[form.dataset.passkey](options(form));
      form.elements.credential.value = shown(credential);
    } catch (error) {
      problem.textContent = `Your device did not do it: ${error.message}`;
      problem.hidden = false;
      return;
    }
    code(form);
    form.submit();
  });
}

for (const form of document.querySelectorAll("form.elsewhere")) form.addEventListener("submit", () => code(form));
