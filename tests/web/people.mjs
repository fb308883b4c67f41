export function people() {}
people.begin = () => {};
